"""Files whose content was read before: known again by what the file system says of them."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import re
import stat
import time
from pathlib import Path
from typing import IO

from ..system.errors import DataError
from ..system.whole_file import whole_file

FOLDER = "known"
# A file that has just been written may be written once more without a sign of it: file systems
# keep times in steps of up to two seconds.
SETTLED_S = 2.0
_DIGEST = re.compile("[0-9a-f]{32}")


def content_of(folder: Path, file: IO[bytes], about: str) -> str | None:
    """What `remember` was told of an open file that has not changed since; None where it was not.

    It goes by device, number, size and times, not by name: a file that is moved stays known.

    Args:
        folder: where it is kept.
        file: an open file.
        about: what else the content depends on.
    """
    name = _name(file, about)
    if name is None:
        return None
    with contextlib.suppress(OSError, UnicodeDecodeError):
        found = (folder / FOLDER / name).read_text("utf-8")
        return found if _DIGEST.fullmatch(found) else None
    return None


def remember(folder: Path, file: IO[bytes], about: str, before: os.stat_result, what: str) -> None:
    """Keep `what`, a digest, of an open file, unless it may have changed since `before`.

    Where it cannot be kept, the file is read again the next time.
    """
    name, now = _name(file, about), os.fstat(file.fileno())
    same = (now.st_size, now.st_mtime_ns) == (before.st_size, before.st_mtime_ns)
    if name is None or not same or time.time() - max(now.st_mtime, now.st_ctime) < SETTLED_S:
        return
    with contextlib.suppress(OSError, DataError):
        (folder / FOLDER).mkdir(exist_ok=True)
        with whole_file(folder / FOLDER / name) as half_done:
            half_done.write_text(what, "utf-8")


def _name(file: IO[bytes], about: str) -> str | None:
    """A name that changes with the file; None of what is no plain file."""
    try:
        found = os.fstat(file.fileno())
    except (OSError, AttributeError, ValueError):  # nothing of the file system
        return None
    if not stat.S_ISREG(found.st_mode):
        return None
    times = (found.st_mtime_ns, found.st_ctime_ns)
    identity = [about, found.st_dev, found.st_ino, found.st_size, *times]
    return hashlib.blake2b(json.dumps(identity).encode(), digest_size=16).hexdigest()
