"""Proteins as tokens: encoded once, kept in the cache folder, read from there when needed.

However large the FASTA files are, only the proteins that a batch needs are in memory, and some
bytes of each of the others: see `Proteins` and `split_held_out`.
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
from tqdm.utils import CallbackIOWrapper

from ..system.cache import cache_errors, cache_folder
from ..system.console import progress
from ..system.errors import DataError
from .alphabet import ESM1B, Alphabet, warn_unknown
from .fasta import Notes, parse_fasta
from .kinds import KindCounts, judge
from .known_files import content_of, identity, remember
from .sources import Source, is_stream, list_sources, open_source, source_name
from .stored_table import StoredTable, TableDamaged, open_table, write_about, write_table
from .token_table import Table, build_table

# Part of each cache key: raise it when the same file would be encoded another way.
_ENCODING_VERSION = 3
_CHUNK = 1 << 20
_MOST_MAPPED = 16  # files whose tables are all open at once; each has six columns
_BLOCK = 1 << 20  # proteins that are gone through at a time

Places = npt.NDArray[np.integer[Any]]


class EmptyRecordWarning(UserWarning):
    """Some records of the input have no residues; they were left out."""


class DamagedCacheWarning(UserWarning):
    """Encoded proteins in the cache were not as they had been written; they are made anew."""


class Proteins:
    """Many proteins as residue ids, by number.

    `proteins[i]` is (length,) uint8, without cls and eos, read-only; `len(proteins)` is N. Of one
    file nothing is in memory but what the system maps (see `StoredTable`); of several, 4 bytes a
    protein, and 8 more where they are more than 16.

    Attributes:
        lengths: (N,) int32, residues of each protein.
        names: the header of each protein, by number; several may be the same.
    """

    def __init__(self, tables: Sequence[Table]) -> None:
        self._tables = list(tables)
        self._ends = np.cumsum([len(table) for table in self._tables]).tolist()
        self.lengths: npt.NDArray[np.int32] = _end_to_end(
            [table.lengths for table in self._tables], np.int32
        )
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

    @property
    def hashes(self) -> npt.NDArray[np.uint64]:
        """(N,) uint64, the same for proteins that are the same; of several files made anew."""
        return _end_to_end([table.hashes for table in self._tables], np.uint64)

    def hash_blocks(self) -> Iterator[npt.NDArray[np.uint64]]:
        """The hashes of all proteins in order, as arrays of at most a million."""
        for table in self._tables:
            hashes = table.hashes
            for first in range(0, len(hashes), _BLOCK):
                yield hashes[first : first + _BLOCK]

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


def split_held_out(proteins: Proteins, fraction: float = 0.05) -> tuple[Places, Places]:
    """Hold proteins out by a hash of their residues, so that duplicates never part.

    Which side a protein is on depends on its residues alone: not on its name, its place or a seed.
    (Where that would leave a side empty, the one distinct protein nearest to it goes there.)

    Args:
        proteins: at least two distinct ones.
        fraction: share of the distinct proteins to hold out, about; between 0 and 1.

    Returns:
        (number for training,) and (number held out,) int32 (int64 from 2^31 proteins on): places
        in `proteins`, ascending. They are all the memory that is taken, 4 bytes a protein.

    Raises:
        DataError: all proteins are the same, so that nothing can be held out.
        ValueError: `fraction` is out of range.
    """
    if not 0 < fraction < 1:
        raise ValueError(f"[split_held_out] fraction must be between 0 and 1; got {fraction}.")
    threshold = np.uint64(int(fraction * 2.0**64))
    least = min((block.min() for block in proteins.hash_blocks()), default=np.uint64(0))
    most = max((block.max() for block in proteins.hash_blocks()), default=np.uint64(0))
    if least == most:
        had = "there are none" if not len(proteins) else f"all {len(proteins):,} are the same"
        if len(proteins) == 1:
            had = "there is one"
        raise DataError(
            "At least two different proteins are needed, one to train on and one to hold out; "
            f"{had}."
        )
    if most < threshold:
        threshold = most
    elif least >= threshold:
        above = (block[block > least] for block in proteins.hash_blocks())
        threshold = min(block.min(initial=most) for block in above)
    return _parted(proteins, threshold)


def _parted(proteins: Proteins, threshold: np.uint64) -> tuple[Places, Places]:
    """The places of hashes that are not below the threshold, and of those that are."""
    count = len(proteins)
    dtype = np.int32 if count < 2**31 else np.int64
    num_below = sum(int((block < threshold).sum()) for block in proteins.hash_blocks())
    above, below = (np.empty(n, dtype) for n in (count - num_below, num_below))
    place = at_above = at_below = 0
    for block in proteins.hash_blocks():
        is_below = block < threshold
        some, others = place + np.flatnonzero(~is_below), place + np.flatnonzero(is_below)
        above[at_above : at_above + len(some)] = some
        below[at_below : at_below + len(others)] = others
        at_above, at_below = at_above + len(some), at_below + len(others)
        place += len(block)
    return above, below


def _end_to_end(columns: list[npt.NDArray[Any]], dtype: type[np.generic]) -> npt.NDArray[Any]:
    """One column as it is, several as a copy."""
    return columns[0] if len(columns) == 1 else np.concatenate([*columns, np.empty(0, dtype)])


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
                with progress(desc=f"📥 reading {name}", unit="B") as bar:
                    shutil.copyfileobj(CallbackIOWrapper(bar.update, file, "read"), copy, _CHUNK)
                file = copy
        folder = parent / _content_key(file, alphabet, name, parent)
        with cache_errors():
            found = _open_sound(folder, name, distant=distant)
            if found is None:
                _encode(file, folder, alphabet, name)
                found = _open_sound(folder, name, distant=distant)
        if found is None:
            raise DataError(f"{folder} changed while it was read; try again.")
    return found


def _open_sound(
    folder: Path, name: str, *, distant: bool
) -> tuple[StoredTable, dict[str, Any]] | None:
    """The table in a folder; None where there is none, or, with a warning, a damaged one."""
    try:
        return open_table(folder, name, distant=distant)
    except TableDamaged as damage:
        warnings.warn(
            f"what the cache has of {name} is damaged ({damage}, in {folder}) and is made anew; if "
            f"that happens again, look after the disk.",
            DamagedCacheWarning,
            stacklevel=4,
        )
        return None


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
        with progress(total=size, desc=f"📥 checking {name}", unit="B") as bar:
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
        digests = write_table(records(), table)
        if not kinds.num_records:
            raise DataError(f"{name} has records, but not one residue; expected proteins.")
        about = {
            "source": name,
            "unknown": unknown,
            "num_empty": num_empty,
            "empty_names": empty,
            "kinds": kinds.to_dict(),
            "notes": notes.seen,
            "digests": digests,
            "key": folder.name,
        }
        write_about(table, about)
        _put_in_place(table, folder, name)


def _put_in_place(table: Path, folder: Path, name: str) -> None:
    """Give a table its name, also where a damaged one has it."""
    try:
        os.replace(table, folder)
        return
    except OSError:
        if not folder.exists():
            raise
    try:
        # Another process was faster with the same content; its table is as good as this one.
        open_table(folder, name)
    except TableDamaged:
        os.replace(folder, table.with_name("damaged"))  # which goes with the rest
        os.replace(table, folder)


def _with_progress(file: IO[bytes], name: str, notes: Notes) -> Iterator[tuple[str, str]]:
    """The records of a file, under a bar that counts its bytes."""
    size = file.seek(0, os.SEEK_END)
    file.seek(0)
    with progress(total=size, desc=f"📥 loading {name}", unit="B") as bar:
        for count, record in enumerate(parse_fasta(file, name, notes)):
            yield record
            if count % 1024 == 0:
                bar.update(file.tell() - bar.n)
