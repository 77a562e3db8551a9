"""A table of encoded proteins: residue ids of all of them end to end, beside what is of each.

tokens        (T,) uint8       residue ids, one protein after the other
lengths       (N,) int32       residues of each protein
offsets       (N + 1,) int64   where each protein begins in tokens
hashes        (N,) uint64      a hash of each protein's residue ids
names         (U,) uint8       UTF-8, one name a line
name_offsets  (N + 1,) int64   where each name begins in names
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

COLUMNS: dict[str, type[np.generic]] = {
    "tokens": np.uint8,
    "lengths": np.int32,
    "offsets": np.int64,
    "hashes": np.uint64,
    "names": np.uint8,
    "name_offsets": np.int64,
}
# Proteins and residues of a block: enough for arrays to pay, and little to keep.
_BLOCK, _BLOCK_RESIDUES = 1024, 1 << 20

Record = tuple[str, npt.NDArray[np.uint8]]


class Table:
    """Proteins by row.

    Attributes:
        lengths: (N,) int32, residues of each protein.
        hashes: (N,) uint64, the same for proteins that are the same.
    """

    lengths: npt.NDArray[np.int32]
    hashes: npt.NDArray[np.uint64]

    def __len__(self) -> int:
        return len(self.lengths)

    def residues(self, i: int) -> npt.NDArray[np.uint8]:
        """(length of protein i,) uint8, read-only."""
        raise NotImplementedError

    def name(self, i: int) -> str:
        """The name of protein i."""
        raise NotImplementedError


@dataclass(frozen=True)
class TokenTable(Table):
    """Encoded proteins in memory.

    Attributes:
        tokens: (T,) uint8, residue ids of all proteins, without cls and eos.
        lengths: (N,) int32, residues of each protein.
        offsets: (N + 1,) int64; protein i is tokens[offsets[i] : offsets[i + 1]].
        hashes: (N,) uint64, the same for proteins that are the same.
        names: (U,) uint8, UTF-8, each name followed by a line end.
        name_offsets: (N + 1,) int64, where each name begins.
    """

    tokens: npt.NDArray[np.uint8]
    lengths: npt.NDArray[np.int32]
    offsets: npt.NDArray[np.int64]
    hashes: npt.NDArray[np.uint64]
    names: npt.NDArray[np.uint8]
    name_offsets: npt.NDArray[np.int64]

    def residues(self, i: int) -> npt.NDArray[np.uint8]:
        """(length of protein i,) uint8: a read-only view."""
        return self.tokens[self.offsets[i] : self.offsets[i + 1]]

    def name(self, i: int) -> str:
        """The name of protein i."""
        line = self.names[self.name_offsets[i] : self.name_offsets[i + 1] - 1]
        return line.tobytes().decode()


def build_table(records: Iterable[Record]) -> TokenTable:
    """A table in memory.

    Args:
        records: name, and (length,) uint8 residue ids, of each protein.
    """
    columns = {column: bytearray() for column in COLUMNS}
    for block in column_blocks(records):
        for column, content in block.items():
            columns[column] += content
    return TokenTable(
        **{c: np.frombuffer(bytes(content), COLUMNS[c]) for c, content in columns.items()}
    )


def column_blocks(records: Iterable[Record]) -> Iterator[dict[str, bytes]]:
    """What comes next in each column, some thousand proteins at a time."""
    tokens, names = 0, 0
    yield {"offsets": bytes(8), "name_offsets": bytes(8)}
    for some in _some_at_a_time(records):
        residues = [ids.tobytes() for _, ids in some]
        lines = [name.encode("utf-8", "replace") + b"\n" for name, _ in some]
        lengths = np.array([len(one) for one in residues])
        ends = tokens + np.cumsum(lengths)
        name_ends = names + np.cumsum([len(line) for line in lines])
        tokens, names = int(ends[-1]), int(name_ends[-1])
        yield {
            "tokens": b"".join(residues),
            "lengths": lengths.astype(np.int32).tobytes(),
            "offsets": ends.astype(np.int64).tobytes(),
            "hashes": b"".join([hash_of(one) for one in residues]),
            "names": b"".join(lines),
            "name_offsets": name_ends.astype(np.int64).tobytes(),
        }


def hash_of(residues: bytes) -> bytes:
    """Eight bytes by which a protein is known."""
    return hashlib.blake2b(residues, digest_size=8).digest()


def _some_at_a_time(records: Iterable[Record]) -> Iterator[list[Record]]:
    some: list[Record] = []
    residues = 0
    for record in records:
        some.append(record)
        residues += len(record[1])
        if len(some) == _BLOCK or residues >= _BLOCK_RESIDUES:
            yield some
            some, residues = [], 0
    if some:
        yield some
