"""The record of a training run: metrics.jsonl, a row at a time."""

from __future__ import annotations

import json
import math
import os
from collections.abc import Mapping
from pathlib import Path
from typing import IO

from ..system.errors import UserError

Row = Mapping[str, float]


class MetricsError(UserError):
    """A metrics.jsonl that cannot be gone on with; the message names the line."""


class MetricsLog:
    """Rows of numbers, one JSON object a line, on the disk as soon as they are known.

    A file that is there already is gone on with, so that the steps of a resumed run follow those
    of the first. A last line that was cut off (a full disk, a power cut) is dropped.

    Args:
        path: the .jsonl file; its folder must exist.
        first_rows: how many rows to go on after; those that follow are dropped. None: all.

    Attributes:
        rows: list of dict, all rows so far.

    Raises:
        MetricsError: the file holds something else, or fewer rows than that.
        OSError: it cannot be read or written.
    """

    def __init__(self, path: str | os.PathLike[str], first_rows: int | None = None) -> None:
        self.path = Path(path)
        self.rows: list[dict[str, float]] = []
        if self.path.exists():
            self._read(first_rows)
        if first_rows is not None and len(self.rows) < first_rows:
            raise MetricsError(
                f"{self.path} has {len(self.rows)} rows, and the checkpoint was made after "
                f"{first_rows}: it is not the record of this run. Put that one back."
            )
        self._file: IO[str] = self.path.open("a", encoding="utf-8")

    @property
    def last_step(self) -> int:
        """The step of the last row; 0 where there is none."""
        return int(self.rows[-1]["step"]) if self.rows else 0

    def append(self, row: Row) -> None:
        """Add a row; it has a `step`, and a number that is not finite becomes null."""
        finite = {key: value if math.isfinite(value) else None for key, value in row.items()}
        self.rows.append({key: value for key, value in finite.items() if value is not None})
        self._file.write(json.dumps(finite) + "\n")
        self._file.flush()

    def sync(self) -> None:
        """Wait until all rows are on the disk itself."""
        os.fsync(self._file.fileno())

    def close(self) -> None:
        """Let go of the file."""
        self._file.close()

    def __enter__(self) -> MetricsLog:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    def _read(self, most_rows: int | None) -> None:
        content = self.path.read_bytes()
        self.rows, whole = _parse(self.path, content, most_rows)
        if whole < len(content):
            os.truncate(self.path, whole)


def read_rows(path: Path) -> list[dict[str, float]]:
    """The whole rows of a record, finite numbers alone.

    The file is left as it is; a run may be writing there.

    Raises:
        MetricsError: it cannot be read, or holds something else.
    """
    try:
        content = path.read_bytes()
    except OSError as error:
        raise MetricsError(f"{path} cannot be read: {error.strerror}.") from None
    rows = []
    for number, row in enumerate(_parse(path, content, None)[0], start=1):
        try:
            numbers = {key: float(value) for key, value in row.items()}
        except (ValueError, TypeError, OverflowError):
            raise MetricsError(f"{path}, row {number}: expected numbers; got {row}.") from None
        rows.append({key: value for key, value in numbers.items() if math.isfinite(value)})
    return [row for row in rows if "step" in row]


def _parse(path: Path, content: bytes, most_rows: int | None) -> tuple[list[dict[str, float]], int]:
    """The rows that are complete and wanted, and how many bytes of the file they are."""
    rows: list[dict[str, float]] = []
    whole = 0
    for number, line in enumerate(content.splitlines(keepends=True), start=1):
        if not line.endswith(b"\n") or len(rows) == most_rows:
            break
        try:
            row = json.loads(line)
            int(row["step"])
        except (ValueError, TypeError, KeyError):
            raise MetricsError(
                f'{path}, line {number}: expected a JSON object with a "step"; '
                f"got {line[:60]!r}. Move the file away, or choose another folder."
            ) from None
        rows.append({key: value for key, value in row.items() if value is not None})
        whole += len(line)
    return rows, whole
