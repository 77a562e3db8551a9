"""A table of encoded proteins in a folder of the cache: written once, and never misread.

Each column of `token_table` is a file of its own. Beside them are

    about.json    the columns' sizes and digests, and what had to be said about the source
    checked.json  what the file system said of the columns when they were found to be whole

A table whose files have not been written to since is taken on trust, however large it is; the
digests of another are computed. And each protein is compared with its hash whenever it is read.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import weakref
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from ..system.console import progress
from ..system.errors import DataError
from ..system.whole_file import whole_file
from .token_table import COLUMNS, Record, Table, column_blocks, hash_of

_ABOUT, _CHECKED = "about.json", "checked.json"
_CHUNK = 1 << 20
# Whose values are read where they are needed; the others are mapped.
_READ = ("tokens", "names")


class TableDamaged(Exception):
    """A table in the cache is not as it was written; the message says what is wrong with it."""


class StoredTable(Table):
    """A table in its folder. In memory are only its numbers, mapped: 28 bytes a protein at most.

    Those of which the system needs the room are let go of and read again. Residues and names are
    read when they are asked for.

    Args:
        folder: of `write_table`, checked by `open_table`.
        distant: keep no file open, as a process on a Mac may have 256 of them. Then lengths and
            offsets are in memory, 12 bytes a protein, and all else is read each time.

    Raises:
        DataError: (of its methods) a protein is not as it was written, or cannot be read.
    """

    def __init__(self, folder: Path, *, distant: bool = False) -> None:
        self._folder, self._distant = folder, distant
        self.lengths = self._column("lengths")
        self._offsets = self._column("offsets")
        self._files: dict[str, int] = {}
        if not distant:
            self._hashes = self._column("hashes")
            self._name_offsets = self._column("name_offsets")
            for column in _READ:
                self._files[column] = os.open(folder / column, os.O_RDONLY)
                weakref.finalize(self, os.close, self._files[column])

    @property
    def hashes(self) -> npt.NDArray[np.uint64]:  # type: ignore[override]
        """(N,) uint64, the same for proteins that are the same."""
        return self._column("hashes") if self._distant else self._hashes

    def residues(self, i: int) -> npt.NDArray[np.uint8]:
        """(length of protein i,) uint8, read-only."""
        content = self._read("tokens", int(self._offsets[i]), int(self.lengths[i]))
        expected = self._read("hashes", 8 * i, 8) if self._distant else self._hashes[i].tobytes()
        if hash_of(content) != expected:
            raise self._damaged(f"protein number {i + 1:,}")
        return np.frombuffer(content, np.uint8)

    def name(self, i: int) -> str:
        """The name of protein i."""
        if self._distant:
            ends = np.frombuffer(self._read("name_offsets", 8 * i, 16), np.int64)
        else:
            ends = self._name_offsets[i : i + 2]
        start, end = ends.tolist()
        try:
            return self._read("names", start, end - start - 1).decode()
        except UnicodeDecodeError:
            raise self._damaged(f"the name of protein number {i + 1:,}") from None

    def _column(self, column: str) -> npt.NDArray[Any]:
        """All of a column: mapped, or read where no file is to stay open."""
        path, dtype = self._folder / column, COLUMNS[column]
        if self._distant:
            return np.fromfile(path, dtype)
        # A plain array's view: slicing a np.memmap costs ten times as much.
        return np.memmap(path, dtype, mode="r").view(np.ndarray)

    def _read(self, column: str, start: int, size: int) -> bytes:
        """`size` bytes of a column's file."""
        if start < 0 or size < 0:
            raise self._damaged(f"a place in {column}")
        try:
            if column in self._files:
                content = os.pread(self._files[column], size, start)
            else:
                with (self._folder / column).open("rb", buffering=0) as file:
                    content = os.pread(file.fileno(), size, start)
        except FileNotFoundError as error:
            raise DataError(
                f"{self._folder / column} went from the cache folder while it was in use "
                f"({error.strerror}); run it again."
            ) from None
        except OSError as error:
            raise DataError(
                f"{self._folder / column} cannot be read: {error.strerror or error}. Look after "
                f"the disk, and run it again."
            ) from None
        if len(content) != size:
            raise self._damaged(f"the end of {column}")
        return content

    def _damaged(self, what: str) -> DataError:
        # So that the next one to open it looks at all of it, and makes it anew.
        with contextlib.suppress(OSError):
            (self._folder / _CHECKED).unlink()
        return DataError(
            f"{self._folder}, encoded proteins in the cache, is damaged: {what} is not as it was "
            f"written. Run it again: it is made anew then. Should that happen twice, look after "
            f"the disk."
        )


def write_table(records: Iterable[Record], folder: Path) -> dict[str, str]:
    """Write a table into an empty folder, in constant memory, and see it safely on the disk.

    The table counts only once `write_about` has been called too.

    Args:
        records: name, and (length,) uint8 residue ids, of each protein.
        folder: exists.

    Returns:
        The digests of the columns, for `write_about`.

    Raises:
        OSError: the disk is full or may not be written.
    """
    digests = {column: _new_digest() for column in COLUMNS}
    with contextlib.ExitStack() as stack:
        streams = {
            column: stack.enter_context((folder / column).open("wb", buffering=_CHUNK))
            for column in COLUMNS
        }
        for block in column_blocks(records):
            for column, content in block.items():
                streams[column].write(content)
                digests[column].update(content)
        for stream in streams.values():
            stream.flush()
            os.fsync(stream.fileno())
    return {column: digest.hexdigest() for column, digest in digests.items()}


def write_about(folder: Path, about: Mapping[str, Any]) -> None:
    """Write about.json: `about`, and the columns' sizes.

    Among `about` are `key`, the name that the folder is to have, and `digests` of `write_table`.
    """
    sizes = {column: (folder / column).stat().st_size for column in COLUMNS}
    content = json.dumps({**about, "sizes": sizes})
    with (folder / _ABOUT).open("w", encoding="utf-8") as file:
        json.dump({"about": content, "digest": _digest_of(content)}, file, indent=1)
        file.flush()
        os.fsync(file.fileno())
    _remember(folder, _stamps(folder))


def open_table(
    folder: Path, name: str, *, distant: bool = False
) -> tuple[StoredTable, dict[str, Any]] | None:
    """A table in its folder, after a look at whether it is as it was written.

    Args:
        folder: of `write_table`.
        name: what the bar of a longer look calls its source.
        distant: keep no file open (see `StoredTable`).

    Returns:
        The table and what `write_about` was told; None where there is no such folder.

    Raises:
        TableDamaged: it is not as it was written.
        OSError: it is there, and cannot be opened.
    """
    if not folder.exists():
        return None
    try:
        about = _read_about(folder)
        if about.get("key") != folder.name:
            raise TableDamaged("it is that of another file")
        for column, size in about["sizes"].items():
            found = (folder / column).stat().st_size
            if found != size:
                raise TableDamaged(f"{column} has {found:,} bytes instead of {size:,}")
        _check_content(folder, about["digests"], name)
        table = StoredTable(folder, distant=distant)
    except (FileNotFoundError, NotADirectoryError) as error:
        raise TableDamaged(f"{Path(error.filename).name} is missing") from None
    return table, about


def _read_about(folder: Path) -> dict[str, Any]:
    try:
        stored = json.loads((folder / _ABOUT).read_text(encoding="utf-8"))
        content, digest = stored["about"], stored["digest"]
        if digest == _digest_of(content):
            about: dict[str, Any] = json.loads(content)
            return about
    except (ValueError, KeyError, TypeError, AttributeError):
        pass
    raise TableDamaged(f"{_ABOUT} is not as it was written")


def _check_content(folder: Path, digests: Mapping[str, str], name: str) -> None:
    """Read the columns that have been written to since they were found to be whole."""
    stamps, checked = _stamps(folder), {}
    with contextlib.suppress(OSError, ValueError):
        checked = json.loads((folder / _CHECKED).read_text(encoding="utf-8"))
    if checked == stamps:
        return
    total = sum((folder / column).stat().st_size for column in COLUMNS)
    with progress(total=total, desc=f"🔍 checking what is encoded of {name}", unit="B") as bar:
        for column in COLUMNS:
            digest = _new_digest()
            with (folder / column).open("rb") as file:
                while chunk := file.read(_CHUNK):
                    digest.update(chunk)
                    bar.update(len(chunk))
            if digest.hexdigest() != digests[column]:
                raise TableDamaged(f"{column} has other bytes than were written")
    _remember(folder, stamps)


def _stamps(folder: Path) -> dict[str, list[int]]:
    """What the file system says of each column, which is something else once it is written to."""
    found = {column: (folder / column).stat() for column in COLUMNS}
    return {c: [s.st_ino, s.st_size, s.st_mtime_ns, s.st_ctime_ns] for c, s in found.items()}


def _remember(folder: Path, stamps: Mapping[str, list[int]]) -> None:
    # A cache that may only be read is looked at each time.
    with contextlib.suppress(OSError), whole_file(folder / _CHECKED) as half_done:
        half_done.write_text(json.dumps(stamps), encoding="utf-8")


def _new_digest() -> Any:
    return hashlib.blake2b(digest_size=16)


def _digest_of(text: str) -> str:
    digest = _new_digest()
    digest.update(text.encode())
    found: str = digest.hexdigest()
    return found
