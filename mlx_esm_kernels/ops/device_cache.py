"""Facts about this machine's GPU, kept in the cache folder until chip, system or source change."""

from __future__ import annotations

import contextlib
import hashlib
import importlib.metadata
import json
import logging
import platform
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from .. import _ext
from ..system.cache import cache_folder
from ..system.errors import DataError
from ..system.whole_file import whole_file

log = logging.getLogger("mlx_esm_kernels")


def circumstances(sources: Sequence[str]) -> dict[str, str]:
    """What a fact about kernels of these sources depends on: chip, system, versions, source."""
    chip = _ext.metal_chip() or {}
    digest = hashlib.blake2b(digest_size=16)
    for source in sources:
        digest.update(source.encode() + b"\0")
    return {
        "chip": str(chip.get("name", "unknown")),
        "architecture": str(chip.get("architecture", "unknown")),
        "system": platform.platform(),
        "mlx": importlib.metadata.version("mlx"),
        "mlx_esm_kernels": importlib.metadata.version("mlx-esm-kernels"),
        "source": digest.hexdigest(),
    }


def name_of(key: dict[str, Any]) -> str:
    """A file name that no other key has."""
    text = json.dumps(key, sort_keys=True)
    return hashlib.blake2b(text.encode(), digest_size=12).hexdigest()


def read(kind: str, key: dict[str, Any]) -> dict[str, Any] | None:
    """What is kept under this key; None where nothing is, or nothing that can be read."""
    with contextlib.suppress(OSError, ValueError, DataError):
        content = json.loads((cache_folder() / kind / f"{name_of(key)}.json").read_text("utf-8"))
        if isinstance(content, dict) and content.get("key") == key:
            return content
    return None


def write(kind: str, key: dict[str, Any], content: dict[str, Any]) -> None:
    """Keep content under this key; without a folder that can be written nothing is kept."""
    put(kind, f"{name_of(key)}.json", json.dumps({"key": key, **content}, indent=1))


def remove(kind: str, key: dict[str, Any]) -> None:
    """Keep nothing under this key any more."""
    with contextlib.suppress(OSError, DataError):
        (cache_folder() / kind / f"{name_of(key)}.json").unlink(missing_ok=True)


def put(kind: str, name: str, text: str) -> Path | None:
    """Write a file of the cache folder, whole or not at all; None where it cannot be written."""
    try:
        folder = cache_folder() / kind
        folder.mkdir(exist_ok=True)
        with whole_file(folder / name) as half_done:
            half_done.write_text(text, encoding="utf-8")
    except (OSError, DataError) as error:
        log.debug("nothing is kept in the cache folder: %s", error)
        return None
    return folder / name
