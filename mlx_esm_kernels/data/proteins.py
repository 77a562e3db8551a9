"""Proteins as tokens: encoded once, kept in the cache folder, mapped into memory from there.

However large the FASTA files are, only the proteins that a batch needs are in memory.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import shutil
import tempfile
import warnings
from bisect import bisect_right
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from operator import index
from pathlib import Path
from typing import IO, Any

import numpy as np
import numpy.typing as npt

from ..system.cache import cache_errors, cache_folder
from ..system.console import progress
from ..system.errors import DataError
from .alphabet import ESM1B, Alphabet, warn_unknown
from .fasta import Notes, parse_fasta
from .kinds import KindCounts, judge
from .known_files import content_of, identity, remember
from .sources import Source, is_stream, list_sources, open_source, source_name
from .token_table import Table, build_table, open_table, write_about, write_table

# Part of each cache key: raise it when the same file would be encoded another way.
_ENCODING_VERSION = 2
_CHUNK = 1 << 20
_MOST_MAPPED = 16  # files whose tables are all mapped at once; each has five columns


class EmptyRecordWarning(UserWarning):
    """Some records of the input have no residues; they were left out."""


class Proteins:
    """Many proteins as residue ids, by number.

    `proteins[i]` is (length,) uint8, without cls and eos, read-only; `len(proteins)` is N.

    Attributes:
        lengths: (N,) int64, residues of each protein.
        hashes: (N,) uint64, the same for proteins that are the same.
        names: the header of each protein, by number; several may be the same.
    """

    def __init__(self, tables: Sequence[Table]) -> None:
        self._tables = list(tables)
        self._ends = np.cumsum([len(table) for table in self._tables]).tolist()
        lengths = [np.diff(table.offsets) for table in self._tables]
        self.lengths: npt.NDArray[np.int64] = np.concatenate([*lengths, np.empty(0, np.int64)])
        hashes = [table.hashes for table in self._tables]
        self.hashes: npt.NDArray[np.uint64] = np.concatenate([*hashes, np.empty(0, np.uint64)])
        self.names = ProteinNames(self)

    @classmethod
    def from_sequences(
        cls,
        sequences: Iterable[str],
        alphabet: Alphabet = ESM1B,
        names: Iterable[str] | None = None,
    ) -> Proteins:
        """Proteins in memory, from text. Without `names` they are called by their numbers."""
        sequences = list(sequences)
        names = [str(i) for i in range(len(sequences))] if names is None else list(names)
        if len(names) != len(sequences):
            raise ValueError(
                f"[Proteins] expected a name for each sequence; got {len(names)} names for "
                f"{len(sequences)} sequences."
            )
        return cls(
            [build_table((n, alphabet.encode(s)) for n, s in zip(names, sequences, strict=True))]
        )

    def __len__(self) -> int:
        return len(self.lengths)

    def __getitem__(self, i: int) -> npt.NDArray[np.uint8]:
        table, row = self._find(i)
        return table.residues(row)

    def __iter__(self) -> Iterator[npt.NDArray[np.uint8]]:
        return (table.residues(row) for table in self._tables for row in range(len(table)))

    def __repr__(self) -> str:
        return f"Proteins({len(self):,} proteins, {int(self.lengths.sum()):,} residues)"

    def _find(self, i: int) -> tuple[Table, int]:
        """The table that holds protein i, and its row there."""
        place = index(i)
        if place < 0:
            place += len(self)
        if not 0 <= place < len(self):
            raise IndexError(f"[Proteins] there are {len(self)} proteins; got number {i}.")
        which = bisect_right(self._ends, place)
        return self._tables[which], place - (self._ends[which - 1] if which else 0)


class ProteinNames(Sequence[str]):
    """The names of `Proteins`, read when asked for."""

    def __init__(self, proteins: Proteins) -> None:
        self._proteins = proteins

    def __len__(self) -> int:
        return len(self._proteins)

    def __getitem__(self, i: Any) -> Any:
        if isinstance(i, slice):
            return [self[place] for place in range(*i.indices(len(self)))]
        table, row = self._proteins._find(i)
        return table.name(row)


def load_proteins(
    sources: Source | Iterable[Source], alphabet: Alphabet = ESM1B, *, as_protein: bool = False
) -> Proteins:
    """The proteins of FASTA files (see `read_fasta` for what those may be), in order.

    Each file is encoded once, in constant memory, into the cache folder; the next call finds it
    there by its content, whatever the file is called by then. Records without residues are left
    out, and one warning says so; others say which characters were read as `<unk>`, and which lines
    as no sequence.

    Args:
        sources: paths, or "-" for standard input; one or several.
        alphabet: which residue is which token.
        as_protein: read nucleotides and alignments too, a residue a letter, with a warning.

    Raises:
        DataError: a file cannot be used (see `read_fasta`), has no residue at all, is one of
            nucleotides or an alignment, or the cache folder cannot be written.
    """
    tables = []
    unknown: Counter[str] = Counter()
    empty: list[str] = []
    num_empty = 0
    notes = Notes()
    listed = list_sources(sources)
    distant = len(listed) > _MOST_MAPPED
    for source in listed:
        table, about = _load_source(source, alphabet, distant=distant)
        judge(source_name(source), about["kinds"], as_protein=as_protein)
        notes.merge(source_name(source), about["notes"])
        tables.append(table)
        unknown.update(about["unknown"])
        empty += about["empty_names"]
        num_empty += about["num_empty"]
    notes.warn()
    warn_unknown(unknown)
    if num_empty:
        records = "1 record" if num_empty == 1 else f"{num_empty:,} records"
        examples = ", ".join(f"{name!r}" for name in empty[:3])
        warnings.warn(
            f"{records} without residues left out, such as {examples}.",
            EmptyRecordWarning,
            stacklevel=2,
        )
    return Proteins(tables)


def split_held_out(
    proteins: Proteins, fraction: float = 0.05
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    """Hold proteins out by a hash of their residues, so that duplicates never part.

    Which side a protein is on depends on its residues alone: not on its name, its place or a seed.
    (Where that would leave a side empty, the one distinct protein nearest to it goes there.)

    Args:
        proteins: at least two distinct ones.
        fraction: share of the distinct proteins to hold out, about; between 0 and 1.

    Returns:
        (number for training,) and (number held out,) int64: places in `proteins`, ascending.

    Raises:
        DataError: all proteins are the same, so that nothing can be held out.
        ValueError: `fraction` is out of range.
    """
    if not 0 < fraction < 1:
        raise ValueError(f"[split_held_out] fraction must be between 0 and 1; got {fraction}.")
    distinct = np.unique(proteins.hashes)
    if len(distinct) < 2:
        had = "there are none" if not len(proteins) else f"all {len(proteins):,} are the same"
        if len(proteins) == 1:
            had = "there is one"
        raise DataError(
            "At least two different proteins are needed, one to train on and one to hold out; "
            f"{had}."
        )
    below = int(np.searchsorted(distinct, np.uint64(int(fraction * 2.0**64))))
    threshold = distinct[min(max(below, 1), len(distinct) - 1)]
    held_out = proteins.hashes < threshold
    return np.flatnonzero(~held_out), np.flatnonzero(held_out)


def _load_source(
    source: Source, alphabet: Alphabet, *, distant: bool
) -> tuple[Table, dict[str, Any]]:
    """One source's table and what is known about it, from the cache folder or encoded into it."""
    with contextlib.ExitStack() as stack:
        name = source_name(source)
        file = stack.enter_context(open_source(source))
        with cache_errors():
            parent = cache_folder() / "tokens"
            parent.mkdir(exist_ok=True)
            if is_stream(source):
                # It can be read once only, and the content has to be known before it is encoded.
                copy = stack.enter_context(tempfile.TemporaryFile(dir=parent))
                shutil.copyfileobj(file, copy, _CHUNK)
                file = copy
        folder = parent / _content_key(file, alphabet, name, parent)
        with cache_errors():
            found = open_table(folder, distant=distant)
            if found is None:
                _encode(file, folder, alphabet, name)
                found = open_table(folder, distant=distant)
        if found is None:
            raise DataError(f"{folder} changed while it was read; try again.")
    return found


def _content_key(file: IO[bytes], alphabet: Alphabet, name: str, parent: Path) -> str:
    """The name under which this content, encoded with this alphabet, is kept.

    A file that has not changed since it was read is not read again.
    """
    about = json.dumps([_ENCODING_VERSION, alphabet.to_dict()])
    before = identity(file, about)
    known = content_of(parent, before)
    if known is not None:
        return known
    digest = hashlib.blake2b(digest_size=16)
    digest.update(about.encode())
    try:
        size = file.seek(0, os.SEEK_END)
        file.seek(0)
        with progress(total=size, desc=f"📥 checking {name}", unit="B", unit_scale=True) as bar:
            while chunk := file.read(_CHUNK):
                digest.update(chunk)
                bar.update(len(chunk))
    except OSError as error:
        raise DataError(f"{name} cannot be read: {error.strerror}.") from None
    remember(parent, file, about, before, digest.hexdigest())
    return digest.hexdigest()


def _encode(file: IO[bytes], folder: Path, alphabet: Alphabet, name: str) -> None:
    """Encode FASTA into `folder`, which appears whole or not at all."""
    unknown: Counter[str] = Counter()
    empty: list[str] = []
    num_empty = 0
    kinds, notes = KindCounts(alphabet), Notes()

    def records() -> Iterator[tuple[str, npt.NDArray[np.uint8]]]:
        nonlocal num_empty
        for header, sequence in _with_progress(file, name, notes):
            ids = alphabet.encode(sequence, unknown)
            if len(ids):
                kinds.add(header, ids)
                yield header, ids
            else:
                num_empty += 1
                empty.extend([header] if len(empty) < 3 else [])

    # A folder beside the final one, so that the move is a rename within one file system.
    with tempfile.TemporaryDirectory(
        dir=folder.parent, prefix=".partial-", ignore_cleanup_errors=True
    ) as partial:
        table = Path(partial) / "table"
        table.mkdir()
        write_table(records(), table)
        if not kinds.num_records:
            raise DataError(f"{name} has records, but not one residue; expected proteins.")
        about = {
            "source": name,
            "unknown": unknown,
            "num_empty": num_empty,
            "empty_names": empty,
            "kinds": kinds.to_dict(),
            "notes": notes.seen,
        }
        write_about(table, about)
        if folder.exists() and open_table(folder) is None:
            shutil.rmtree(folder)
        try:
            os.replace(table, folder)
        except OSError:
            # Another process was faster with the same content; its table is as good as this one.
            if open_table(folder) is None:
                raise


def _with_progress(file: IO[bytes], name: str, notes: Notes) -> Iterator[tuple[str, str]]:
    """The records of a file, under a bar that counts its bytes."""
    size = file.seek(0, os.SEEK_END)
    file.seek(0)
    with progress(total=size, desc=f"📥 loading {name}", unit="B", unit_scale=True) as bar:
        for count, record in enumerate(parse_fasta(file, name, notes)):
            yield record
            if count % 1024 == 0:
                bar.update(file.tell() - bar.n)
