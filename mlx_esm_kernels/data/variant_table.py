"""Variants and their measured fitness as csv, plain or gzip; every cell is kept as it is."""

from __future__ import annotations

import csv
import gzip
import io
import math
import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from ..system.errors import DataError
from ..system.whole_file import whole_file

Floats = npt.NDArray[np.float64]

_GZIP = b"\x1f\x8b"


@dataclass(frozen=True)
class VariantTable:
    """A csv file.

    Attributes:
        name: what messages call it.
        header: the names of the columns.
        rows: their cells; each row is as long as the header.
    """

    name: str
    header: list[str]
    rows: list[list[str]]

    def column(self, name: str) -> list[str]:
        """The cells of a column; DataError where there is none of that name."""
        if name not in self.header:
            raise DataError(
                f"{self.name} has no column {name!r}; it has {', '.join(map(repr, self.header))}."
            )
        place = self.header.index(name)
        return [row[place] for row in self.rows]

    def numbers(self, name: str) -> Floats:
        """(N,) the cells of a column as numbers; NaN where one is empty.

        Raises:
            DataError: there is no such column, or a cell is no number.
        """
        numbers = []
        for row, cell in enumerate(self.column(name), start=1):
            try:
                numbers.append(float(cell) if cell.strip() else math.nan)
            except ValueError:
                raise DataError(
                    f"{self.name}, row {row}: expected a number in column {name!r}; got {cell!r}."
                ) from None
        return np.array(numbers)

    def with_columns(self, scores: Mapping[str, Floats]) -> VariantTable:
        """The table with a column (N,) more for each name."""
        rows = [
            [*row, *(f"{values[place]:.7g}" for values in scores.values())]
            for place, row in enumerate(self.rows)
        ]
        return VariantTable(self.name, [*self.header, *scores], rows)


def read_variants(path: Path) -> VariantTable:
    """The table in a csv file; its content tells whether it is gzip.

    Raises:
        DataError: it is missing, unreadable, damaged, no csv, or has no rows.
    """
    try:
        content = path.read_bytes()
        if content.startswith(_GZIP):
            content = gzip.decompress(content)
        lines = csv.reader(io.StringIO(content.decode("utf-8-sig"), newline=""), strict=True)
        rows = [row for row in lines if row]
    except FileNotFoundError:
        raise DataError(f"{path} does not exist.") from None
    except (EOFError, zlib.error, gzip.BadGzipFile) as error:
        raise DataError(f"{path} is cut short or damaged ({error}); get it once more.") from None
    except OSError as error:
        raise DataError(f"{path} cannot be read: {error.strerror}.") from None
    except (UnicodeDecodeError, csv.Error) as error:
        raise DataError(f"{path} is no csv: {error}.") from None
    if not rows:
        raise DataError(f"{path} is empty; expected csv: a line of names, then a line a variant.")
    header, *rows = rows
    if not rows:
        raise DataError(f"{path} has a line of names, but no rows.")
    for number, row in enumerate(rows, start=1):
        if len(row) != len(header):
            raise DataError(
                f"{path}, row {number}: expected {len(header)} cells, as in the line of names; "
                f"got {len(row)}."
            )
    return VariantTable(str(path), header, rows)


def write_variants(path: Path, table: VariantTable) -> None:
    """Write a csv file, whole or not at all; gzip where its name ends in .gz."""
    text = io.StringIO(newline="")
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(table.header)
    writer.writerows(table.rows)
    content = text.getvalue().encode()
    with whole_file(path) as half_done:
        # Without a time in it, the same table is the same file.
        half_done.write_bytes(gzip.compress(content, mtime=0) if path.suffix == ".gz" else content)
