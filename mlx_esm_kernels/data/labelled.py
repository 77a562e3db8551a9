"""Proteins and what is known of each, or of each of their residues, out of a table."""

from __future__ import annotations

import re
import warnings
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, get_args

import numpy as np
import numpy.typing as npt

from ..system.errors import DataError
from .alphabet import Alphabet
from .csv_table import CsvTable, is_missing
from .kinds import KindCounts, judge
from .proteins import Proteins
from .residues import without_stop

Task = Literal["regression", "classification"]
Level = Literal["protein", "residue"]
TASKS: tuple[Task, ...] = get_args(Task)
LEVELS: tuple[Level, ...] = get_args(Level)
UNKNOWN_LABEL = "-"
FEWEST_PROTEINS = 10  # distinct ones, of which a part learns, a part chooses and a part judges

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]


class LabelWarning(UserWarning):
    """Something about the targets, or the sequences, that their owner has to know."""


@dataclass(frozen=True)
class Labelled:
    """N proteins and their targets, E of them: one a protein, or one a residue.

    Attributes:
        task, level: what the targets are, and of what.
        rows: (N,) int64, the row of the table that each protein stands in, from 0.
        sequences: N texts, upper case.
        proteins: the same as ids.
        targets: (E,) float64, a number or the index of a class; NaN where a residue's is unknown.
        offsets: (N + 1,) int64; protein i has targets[offsets[i] : offsets[i + 1]].
        classes: their names; none of a regression.
    """

    task: Task
    level: Level
    rows: Ints
    sequences: list[str]
    proteins: Proteins
    targets: Floats
    offsets: Ints
    classes: tuple[str, ...] = ()

    def __len__(self) -> int:
        return len(self.sequences)

    def of_protein(self, i: int) -> Floats:
        """The targets of protein i."""
        return self.targets[self.offsets[i] : self.offsets[i + 1]]


def read_labelled(
    table: CsvTable,
    *,
    sequence_col: str,
    target_col: str,
    task: Task,
    level: Level,
    alphabet: Alphabet,
    unknown_label: str = UNKNOWN_LABEL,
    as_protein: bool = False,
) -> Labelled:
    """The proteins of a table and their targets; rows without one of both are left out, and said.

    Args:
        table: of `read_csv`.
        sequence_col, target_col: names of its columns.
        task: "regression", of numbers, or "classification", of names.
        level: "protein": a target a row. "residue": as many as the sequence has residues, in one
            cell: a character each, or numbers with spaces or semicolons between them.
        alphabet: of the model.
        unknown_label: the character of residues whose class is unknown; "": there is none.
        as_protein: take what looks like nucleotides or an alignment all the same.

    Raises:
        DataError: a column is missing; a sequence or a target is none; there are too few of them,
            or they are all alike. The message names the row.
    """
    if sequence_col == target_col:
        raise DataError(f"{table.name}: sequences and targets cannot both be in {target_col!r}.")
    texts, cells = table.column(sequence_col), table.column(target_col)
    rows = _rows_of_both(table, texts, cells, task, level, (sequence_col, target_col))
    sequences = read_sequences(table, sequence_col, rows, alphabet, as_protein=as_protein)
    proteins = Proteins.from_sequences(sequences, alphabet, row_names(rows))
    columns = _Targets(table, target_col, rows, proteins.lengths.astype(np.int64))
    if level == "residue":
        found = columns.residues(task, unknown_label)
    else:
        found = columns.numbers() if task == "regression" else columns.classes()
    targets, offsets, classes = found
    labelled = Labelled(task, level, rows, sequences, proteins, targets, offsets, classes)
    _require_enough(labelled, table.name, target_col)
    _warn_of_contradictions(labelled, table.name)
    return labelled


def row_names(rows: Ints) -> list[str]:
    """What messages call the proteins in some rows of a table, from 0."""
    return [f"row {row + 1}" for row in rows.tolist()]


def read_sequences(
    table: CsvTable, column: str, rows: Ints, alphabet: Alphabet, *, as_protein: bool = False
) -> list[str]:
    """The sequences in some rows of a table, upper case, without spaces and a final stop.

    Raises:
        DataError: one has no residues, or characters that are none; or half of them are
            nucleotides, unless `as_protein`.
    """
    texts, kinds, found = table.column(column), KindCounts(alphabet), []
    for row in rows.tolist():
        sequence = without_stop("".join(texts[row].split())).upper()
        unknown: Counter[str] = Counter()
        ids = alphabet.encode(sequence, unknown)
        if unknown or not len(ids):
            odd = f", which has {next(iter(unknown))!r} in it" if unknown else ""
            raise DataError(
                f"{table.name}, row {row + 1}: expected a sequence, one letter a residue, in "
                f"column {column!r}; got {_short(texts[row])!r}{odd}."
            )
        kinds.add(f"row {row + 1}", ids)
        found.append(sequence)
    if found:
        judge(f"column {column!r} of {table.name}", kinds.to_dict(), as_protein=as_protein)
    return found


def _rows_of_both(
    table: CsvTable,
    texts: Sequence[str],
    cells: Sequence[str],
    task: Task,
    level: Level,
    names: tuple[str, str],
) -> Ints:
    """Places of the rows that have both; a warning counts the others."""
    # NA may be a class; as a number it is none.
    only_blank = task == "classification" or level == "residue"
    without = {
        names[0]: [not text.strip() for text in texts],
        names[1]: [not cell.strip() if only_blank else is_missing(cell) for cell in cells],
    }
    for name, missing in without.items():
        count = sum(missing)
        if count == len(missing):
            raise DataError(f"{table.name}: column {name!r} is empty.")
        if count:
            those = "1 row is" if count == 1 else f"{count:,} rows are"
            first = ", the first of them" if count > 1 else ""
            warnings.warn(
                f"{table.name}: {those} left out, as column {name!r} is empty there{first}: row "
                f"{missing.index(True) + 1}.",
                LabelWarning,
                stacklevel=4,
            )
    return np.flatnonzero(~np.any(list(without.values()), axis=0)).astype(np.int64)


_Found = tuple[Floats, Ints, tuple[str, ...]]


class _Targets:
    """The column of targets, in the rows that count."""

    def __init__(self, table: CsvTable, column: str, rows: Ints, lengths: Ints) -> None:
        self._table, self._column, self._lengths = table, column, lengths
        cells = table.column(column)
        self._cells = [(row + 1, cells[row].strip()) for row in rows.tolist()]

    def numbers(self) -> _Found:
        targets = [self._number(row, cell) for row, cell in self._cells]
        return np.array(targets), np.arange(len(targets) + 1), ()

    def classes(self) -> _Found:
        counts = Counter(cell for _, cell in self._cells)
        names = _in_order(counts)
        alone = [name for name in names if counts[name] == 1]
        if alone:
            row = next(row for row, cell in self._cells if cell == alone[0])
            more = f", and so have {len(alone) - 1:,} other classes" if len(alone) > 1 else ""
            are_numbers = all(self._table.as_number(name) is not None for name in names)
            raise DataError(
                f"{self._table.name}, row {row}: class {_short(alone[0])!r} of column "
                f"{self._column!r} has this one row{more}; what is learned of it could not be "
                f"judged. Leave it out, or give it the name of another class."
                + (" Or are these numbers, of a regression?" if are_numbers else "")
            )
        places = {name: float(place) for place, name in enumerate(names)}
        targets = np.array([places[cell] for _, cell in self._cells])
        return targets, np.arange(len(targets) + 1), tuple(names)

    def residues(self, task: Task, unknown_label: str) -> _Found:
        offsets = np.concatenate([[0], np.cumsum(self._lengths)]).astype(np.int64)
        if task == "regression":
            parts = [
                [self._number(row, number) for number in self._split(row, cell, length)]
                for (row, cell), length in zip(self._cells, self._lengths.tolist(), strict=True)
            ]
            return np.concatenate(parts), offsets, ()
        for (row, cell), length in zip(self._cells, self._lengths.tolist(), strict=True):
            self._require_length(row, len(cell), length, "characters")
            if re.search(r"\s", cell):
                raise DataError(
                    f"{self._where(row)}: a label is a space; write unknown ones as "
                    f"{unknown_label or UNKNOWN_LABEL}, and coil as C."
                )
        return self._characters(offsets, unknown_label)

    def _characters(self, offsets: Ints, unknown_label: str) -> _Found:
        """The classes of residues, a character each; a warning counts those unknown."""
        text = "".join(cell for _, cell in self._cells)
        labels, targets = np.unique(np.array(list(text)), return_inverse=True)
        names = labels.tolist()
        values = targets.astype(np.float64)
        if unknown_label in names:
            place = names.index(unknown_label)
            is_unknown = targets == place
            warnings.warn(
                f"{self._table.name}: {int(is_unknown.sum()):,} of {len(text):,} residues have "
                f"{unknown_label!r}, which is taken for unknown; where it is a class, say so with "
                f'--unknown-label "" (in Python unknown_label="").',
                LabelWarning,
                stacklevel=5,
            )
            values = np.where(is_unknown, np.nan, values - (targets > place))
            names.remove(unknown_label)
        return values, offsets, tuple(names)

    def _split(self, row: int, cell: str, length: int) -> list[str]:
        between = r"[;\s]+" if self._table.decimal == "," else r"[;,\s]+"
        parts = [part for part in re.split(between, cell.strip("[]() ")) if part]
        self._require_length(row, len(parts), length, "numbers")
        return parts

    def _require_length(self, row: int, got: int, length: int, what: str) -> None:
        if got != length:
            raise DataError(
                f"{self._where(row)}: expected {length:,} {what}, one a residue; got {got:,}."
            )

    def _number(self, row: int, cell: str) -> float:
        number = self._table.as_number(cell)
        if number is None:
            raise DataError(
                f"{self._where(row)}: expected a number; got {_short(cell)!r}. For names of "
                f"classes ask for --task classification."
            )
        return number

    def _where(self, row: int) -> str:
        return f"{self._table.name}, row {row}, column {self._column!r}"


def _require_enough(labelled: Labelled, name: str, column: str) -> None:
    """Refuse targets from which nothing can be learned."""
    known = labelled.targets[~np.isnan(labelled.targets)]
    distinct = len(np.unique(labelled.proteins.hashes))
    if distinct < FEWEST_PROTEINS:
        raise DataError(
            f"{name} has {distinct} different proteins with a target; expected {FEWEST_PROTEINS} "
            f"at least: some to learn from, some to choose by, some to judge by."
        )
    if not len(known):
        raise DataError(f"{name}: not one target of column {column!r} is known.")
    if known.min() == known.max():
        all_are = f"{known[0]:g}"
        if labelled.classes:
            all_are = repr(labelled.classes[int(known[0])])
        raise DataError(
            f"{name}: all targets of column {column!r} are the same, {all_are}; there is nothing "
            f"to learn."
        )


def _warn_of_contradictions(labelled: Labelled, name: str) -> None:
    """Say where the same sequence has different targets."""
    first: dict[int, int] = {}
    contradicted: dict[int, tuple[int, int]] = {}
    for place, key in enumerate(labelled.proteins.hashes.tolist()):
        before = first.setdefault(key, place)
        if not np.array_equal(
            labelled.of_protein(before), labelled.of_protein(place), equal_nan=True
        ):
            contradicted.setdefault(key, (before, place))
    if not contradicted:
        return
    a, b = (int(labelled.rows[place]) + 1 for place in next(iter(contradicted.values())))
    one = len(contradicted) == 1
    warnings.warn(
        f"{name}: {'1 sequence has' if one else f'{len(contradicted):,} sequences have'} different "
        f"targets in different rows, such as rows {a} and {b}; all are used, always in the same "
        f"part.",
        LabelWarning,
        stacklevel=4,
    )


def _in_order(names: Counter[str]) -> list[str]:
    """Names of classes: those of numbers by their value, others as texts."""
    if all(name.isdecimal() for name in names):
        return sorted(names, key=lambda name: (int(name), name))
    return sorted(names)


def _short(text: str) -> str:
    return text if len(text) <= 40 else f"{text[:40]}..."
