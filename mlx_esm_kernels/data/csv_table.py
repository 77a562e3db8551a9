"""Tables of text, such as variants and what was measured of them; every cell is kept as it is.

Separated by commas, semicolons, tabs or bars, in UTF-8, UTF-16 (Excel's "Unicode Text") or
Windows-1252, plain or compressed: the content tells.
"""

from __future__ import annotations

import csv
import gzip
import io
import math
import re
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
import numpy.typing as npt

from ..system.errors import DataError
from ..system.whole_file import OutputError, require_no_input, whole_file
from .unpacking import unpacked

Floats = npt.NDArray[np.float64]

_SEPARATORS = (",", ";", "\t", "|")
_DECIMAL_COMMA = re.compile(r"\s*[-+]?\d+,\d+([eE][-+]?\d+)?\s*")
_THOUSANDS = re.compile(r"[-+]?[1-9]\d{0,2}(\.\d{3})+(,\d*)?([eE][-+]?\d+)?")
# What R, pandas, Excel and people write where there is no number.
_MISSING = frozenset(("", "na", "n/a", "#n/a", "nan", "null", "none", "-", ".", "?", "inf", "-inf"))


def is_missing(cell: str) -> bool:
    """Whether a cell is empty, or says that there is no number."""
    return cell.strip().lower() in _MISSING


class TableWarning(UserWarning):
    """Something about a table that its owner has to know."""


@dataclass(frozen=True)
class CsvTable:
    """A table.

    Attributes:
        name: what messages call it.
        header: the names of the columns.
        rows: their cells; each row is as long as the header.
        separator: what stands between cells.
        decimal: the sign before the fraction of a number.
        comments: lines before the header, which begin with #.
    """

    name: str
    header: list[str]
    rows: list[list[str]]
    separator: str = ","
    decimal: str = "."
    comments: list[str] = field(default_factory=list)

    def column(self, name: str) -> list[str]:
        """The cells of a column; DataError where there is none of that name, or more than one."""
        if name not in self.header:
            raise DataError(
                f"{self.name} has no column {name!r}; it has {', '.join(map(repr, self.header))}."
            )
        if self.header.count(name) > 1:
            raise DataError(f"{self.name} has more than one column {name!r}; rename the others.")
        place = self.header.index(name)
        return [row[place] for row in self.rows]

    def numbers(self, name: str) -> Floats:
        """(N,) the cells of a column as numbers; NaN where one is missing.

        Raises:
            DataError: there is no such column, or a cell is no number.
        """
        numbers = []
        for row, cell in enumerate(self.column(name), start=1):
            number = self.as_number(cell)
            if number is None:
                raise DataError(
                    f"{self.name}, row {row}: expected a number in column {name!r}; got {cell!r}."
                )
            numbers.append(number)
        return np.array(numbers)

    def as_number(self, cell: str) -> float | None:
        """A number as this table writes it; NaN where it is missing, None where it is none.

        Where decimals are commas a full stop is a sign between thousands, and elsewhere no number:
        nobody knows whether 0.5 is a half there or five.
        """
        text = cell.strip().lower()
        if is_missing(text):
            return math.nan
        if self.decimal == ",":
            if "." in text and not _THOUSANDS.fullmatch(text):
                return None
            text = text.replace(".", "").replace(",", ".")
        try:
            number = float(text)
        except ValueError:
            return None
        return number if math.isfinite(number) and "_" not in text else None

    def with_columns(self, columns: Mapping[str, Floats | Sequence[str]]) -> CsvTable:
        """The table with a column more for each name: numbers (N,), or texts as they are."""
        cells = [[self._cell(value) for value in values] for values in columns.values()]
        rows = [[*row, *more] for row, *more in zip(self.rows, *cells, strict=True)]
        return replace(self, header=[*self.header, *columns], rows=rows)

    def without_column(self, name: str) -> CsvTable:
        """The table without a column; DataError where there is none of that name, or several."""
        self.column(name)
        place = self.header.index(name)
        rows = [[*row[:place], *row[place + 1 :]] for row in self.rows]
        return replace(self, header=[n for n in self.header if n != name], rows=rows)

    def _cell(self, value: float | str) -> str:
        return value if isinstance(value, str) else self.number_as_text(value)

    def number_as_text(self, value: float) -> str:
        """A number as this table writes it; NaN becomes an empty cell."""
        return "" if math.isnan(value) else f"{value:.7g}".replace(".", self.decimal)


def read_csv(path: Path) -> CsvTable:
    """The table in a file.

    Raises:
        DataError: it is missing, unreadable, damaged, no table, or has no rows.
    """
    try:
        with path.open("rb") as file:
            content = unpacked(file, str(path), expected="csv").read()
    except FileNotFoundError:
        raise DataError(f"{path} does not exist.") from None
    except OSError as error:
        raise DataError(f"{path} cannot be read: {error.strerror}.") from None
    lines = _text(path, content).splitlines(keepends=True)
    first = next((i for i, line in enumerate(lines) if not line.startswith("#")), len(lines))
    comments, text = [line.rstrip("\r\n") for line in lines[:first]], "".join(lines[first:])
    separator = _separator(text)
    try:
        reader = csv.reader(io.StringIO(text, newline=""), delimiter=separator, strict=True)
        rows = [row for row in reader if row]
    except csv.Error as error:
        raise DataError(f"{path} is no csv: {error}.") from None
    if not rows:
        raise DataError(f"{path} is empty; expected csv: a line of names, then the rows.")
    header, *rows = rows
    if header[0].startswith(">"):
        raise DataError(f"{path} is FASTA; expected a table: a line of names, then the rows.")
    if not rows:
        raise DataError(f"{path} has a line of names, but no rows.")
    for number, row in enumerate(rows, start=1):
        if len(row) != len(header):
            raise DataError(
                f"{path}, row {number}: expected {len(header)} cells, as in the line of names; "
                f"got {len(row)}."
            )
    has_commas = separator != "," and any(_DECIMAL_COMMA.fullmatch(c) for row in rows for c in row)
    return CsvTable(str(path), header, rows, separator, "," if has_commas else ".", comments)


def require_csv_output(path: Path, given: Path | None) -> None:
    """Refuse a file that `write_csv` would not write, or that is the table itself.

    Raises:
        OutputError: it is.
    """
    if not path.name.removesuffix(".gz").endswith(".csv"):
        raise OutputError(f"{path} must end in .csv or .csv.gz.")
    require_no_input(path, given)


def write_csv(path: Path, table: CsvTable) -> None:
    """Write a table as UTF-8, whole or not at all; gzip where its name ends in .gz."""
    text = io.StringIO(newline="")
    text.writelines(f"{line}\n" for line in table.comments)
    writer = csv.writer(text, lineterminator="\n", delimiter=table.separator)
    writer.writerow(table.header)
    writer.writerows(table.rows)
    content = text.getvalue().encode()
    with whole_file(path) as half_done:
        # Without a time in it, the same table is the same file.
        half_done.write_bytes(gzip.compress(content, mtime=0) if path.suffix == ".gz" else content)


def _text(path: Path, content: bytes) -> str:
    """A table's text, from what editors and spreadsheets save."""
    encoding = "utf-8-sig"
    if content.startswith((b"\xff\xfe", b"\xfe\xff")):
        encoding = "utf-16"
    elif content[1:2] == b"\0":
        encoding = "utf-16-le"
    try:
        text = content.decode(encoding)
    except UnicodeDecodeError as error:
        text = _windows_text(path, content, encoding, error)
    if "\0" in text:
        raise DataError(f"{path} is no csv: it has zero bytes in it, so it is no text.")
    return text


def _windows_text(path: Path, content: bytes, encoding: str, error: UnicodeDecodeError) -> str:
    if encoding != "utf-8-sig" or any(byte < 9 for byte in content):
        raise DataError(f"{path} is no csv: {error}.") from None
    warnings.warn(
        f"{path} is no UTF-8 and was read as Windows-1252 (Latin-1); it is written as UTF-8.",
        TableWarning,
        stacklevel=4,
    )
    return content.decode("cp1252", errors="replace")


def _separator(text: str) -> str:
    """What stands between cells: what splits the header, and the rows after it alike."""
    lines = [line for line in text.splitlines()[:20] if line.strip()]
    best, most = ",", 1
    for separator in _SEPARATORS:
        try:
            counts = [len(row) for row in csv.reader(lines, delimiter=separator)]
        except csv.Error:
            continue
        if counts and counts[0] > most and len(set(counts)) == 1:
            best, most = separator, counts[0]
    return best
