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


def identity(file: IO[bytes], about: str) -> str | None:
    """A name that an open file has until it changes; None of what is no plain file.

    It goes by device, number, size and times, not by name: a file that is moved stays known.

    Args:
        file: an open file.
        about: what else its content, as it is kept, depends on.
    """
    found = _stat(file)
    if found is None or not stat.S_ISREG(found.st_mode):
        return None
    times = (found.st_mtime_ns, found.st_ctime_ns)
    marks = [about, found.st_dev, found.st_ino, found.st_size, *times]
    return hashlib.blake2b(json.dumps(marks).encode(), digest_size=16).hexdigest()


def content_of(folder: Path, name: str | None) -> str | None:
    """What `remember` kept in `folder` of a file with this `identity`; None where nothing is."""
    if name is None:
        return None
    with contextlib.suppress(OSError, UnicodeDecodeError):
        found = (folder / FOLDER / name).read_text("utf-8")
        return found if _DIGEST.fullmatch(found) else None
    return None


def remember(folder: Path, file: IO[bytes], about: str, before: str | None, digest: str) -> None:
    """Keep the digest of an open file whose `identity` was `before` when it began to be read.

    Nothing is kept of one that has changed since, or may still do so unseen. Where nothing can be
    kept, the file is read again the next time.
    """
    found = _stat(file)
    if found is None or before is None or identity(file, about) != before:
        return
    if time.time() - max(found.st_mtime, found.st_ctime) < SETTLED_S:
        return
    with contextlib.suppress(OSError, DataError):
        (folder / FOLDER).mkdir(exist_ok=True)
        with whole_file(folder / FOLDER / before) as half_done:
            half_done.write_text(digest, "utf-8")


def _stat(file: IO[bytes]) -> os.stat_result | None:
    """What the file system says of it; None of what it does not know."""
    try:
        return os.fstat(file.fileno())
    except (OSError, AttributeError, ValueError):
        return None
