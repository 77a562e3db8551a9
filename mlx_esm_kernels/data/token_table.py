"""A table of encoded proteins: residue ids of all of them end to end, in memory or in a folder.

In a folder each column is a file of its own, written front to back and later mapped into memory:

    tokens        (T,) uint8       residue ids, one protein after the other
    offsets       (N + 1,) int64   where each protein begins in tokens
    hashes        (N,) uint64      a hash of each protein's residue ids
    names         (U,) uint8       UTF-8, one name a line
    name_offsets  (N + 1,) int64   where each name begins in names
    about.json                     N, T, U, and what had to be said about the source
"""

from __future__ import annotations

import contextlib
import functools
import hashlib
import io
import json
import os
import struct
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import numpy as np
import numpy.typing as npt

from ..system.errors import DataError

_COLUMNS: dict[str, type[np.generic]] = {
    "tokens": np.uint8,
    "offsets": np.int64,
    "hashes": np.uint64,
    "names": np.uint8,
    "name_offsets": np.int64,
}
_ABOUT = "about.json"


class Table:
    """Proteins by row; the attributes are those of `TokenTable`."""

    tokens: npt.NDArray[np.uint8]
    offsets: npt.NDArray[np.int64]
    hashes: npt.NDArray[np.uint64]
    names: npt.NDArray[np.uint8]
    name_offsets: npt.NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.hashes)

    def residues(self, i: int) -> npt.NDArray[np.uint8]:
        """(length of protein i,) uint8: a read-only view."""
        return self.tokens[self.offsets[i] : self.offsets[i + 1]]

    def name(self, i: int) -> str:
        """The name of protein i."""
        line = self.names[self.name_offsets[i] : self.name_offsets[i + 1] - 1]
        return line.tobytes().decode()


@dataclass(frozen=True)
class TokenTable(Table):
    """Encoded proteins, every column at hand.

    Attributes:
        tokens: (T,) uint8, residue ids of all proteins, without cls and eos.
        offsets: (N + 1,) int64; protein i is tokens[offsets[i] : offsets[i + 1]].
        hashes: (N,) uint64, the same for proteins that are the same.
        names: (U,) uint8, UTF-8, each name followed by a line end.
        name_offsets: (N + 1,) int64, where each name begins.
    """

    tokens: npt.NDArray[np.uint8]
    offsets: npt.NDArray[np.int64]
    hashes: npt.NDArray[np.uint64]
    names: npt.NDArray[np.uint8]
    name_offsets: npt.NDArray[np.int64]


class DistantTable(Table):
    """One of many tables: tokens and names are mapped when they are needed, and let go of again.

    A map keeps its file open, and a process on a Mac may have 256 of them.

    Args:
        folder: where the columns are.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self.offsets = np.fromfile(folder / "offsets", np.int64)
        self.hashes = np.fromfile(folder / "hashes", np.uint64)
        self.name_offsets = np.fromfile(folder / "name_offsets", np.int64)

    @property
    def tokens(self) -> npt.NDArray[np.uint8]:  # type: ignore[override]
        return _map_again(self._folder / "tokens")

    @property
    def names(self) -> npt.NDArray[np.uint8]:  # type: ignore[override]
        return _map_again(self._folder / "names")


@functools.lru_cache(maxsize=32)
def _map_again(path: Path) -> npt.NDArray[np.uint8]:
    try:
        return np.memmap(path, dtype=np.uint8, mode="r").view(np.ndarray)
    except (OSError, ValueError) as error:
        raise DataError(
            f"{path} went from the cache folder while it was in use ({error}); run it again."
        ) from None


def build_table(records: Iterable[tuple[str, npt.NDArray[np.uint8]]]) -> TokenTable:
    """A table in memory.

    Args:
        records: name, and (length,) uint8 residue ids, of each protein.
    """
    streams = {column: io.BytesIO() for column in _COLUMNS}
    _write_columns(records, streams)
    return TokenTable(
        **{c: np.frombuffer(s.getvalue(), dtype=_COLUMNS[c]) for c, s in streams.items()}
    )


def write_table(records: Iterable[tuple[str, npt.NDArray[np.uint8]]], folder: Path) -> None:
    """Write a table into an empty folder, in constant memory, and see it safely on the disk.

    The table counts only once `write_about` has been called too.

    Args:
        records: name, and (length,) uint8 residue ids, of each protein.
        folder: exists.

    Raises:
        OSError: the disk is full or may not be written.
    """
    with contextlib.ExitStack() as stack:
        streams = {
            column: stack.enter_context((folder / column).open("wb", buffering=1 << 20))
            for column in _COLUMNS
        }
        _write_columns(records, streams)
        for stream in streams.values():
            stream.flush()
            os.fsync(stream.fileno())


def write_about(folder: Path, about: Mapping[str, Any]) -> None:
    """Write about.json: `about` and the sizes of the columns, by which `open_table` checks them."""
    sizes = {column: (folder / column).stat().st_size for column in _COLUMNS}
    with (folder / _ABOUT).open("w", encoding="utf-8") as file:
        json.dump({**about, "sizes": sizes}, file, indent=1)
        file.flush()
        os.fsync(file.fileno())


def open_table(folder: Path, *, distant: bool = False) -> tuple[Table, dict[str, Any]] | None:
    """Map a table from its folder into memory.

    Args:
        folder: of `write_table`.
        distant: keep no file open (see `DistantTable`).

    Returns:
        The table and what `write_about` was told; None where no complete table is there.

    Raises:
        OSError: it is there, and cannot be opened.
    """
    try:
        about = json.loads((folder / _ABOUT).read_text(encoding="utf-8"))
        if any((folder / column).stat().st_size != about["sizes"][column] for column in _COLUMNS):
            return None
    except (FileNotFoundError, NotADirectoryError, ValueError, KeyError, TypeError):
        return None
    if distant:
        return DistantTable(folder), about
    # Plain array views: slicing a np.memmap costs ten times as much.
    columns = {
        column: np.memmap(folder / column, dtype=dtype, mode="r").view(np.ndarray)
        for column, dtype in _COLUMNS.items()
    }
    return TokenTable(**columns), about


def _write_columns(
    records: Iterable[tuple[str, npt.NDArray[np.uint8]]], streams: Mapping[str, IO[bytes]]
) -> None:
    """Append each record to every column's stream."""
    tokens, names = 0, 0
    pack = struct.Struct("=q").pack
    streams["offsets"].write(pack(0))
    streams["name_offsets"].write(pack(0))
    for name, ids in records:
        line = name.encode("utf-8", "replace") + b"\n"
        residues = ids.tobytes()
        tokens, names = tokens + len(residues), names + len(line)
        streams["tokens"].write(residues)
        streams["names"].write(line)
        streams["hashes"].write(hashlib.blake2b(residues, digest_size=8).digest())
        streams["offsets"].write(pack(tokens))
        streams["name_offsets"].write(pack(names))
