"""Where sequences come from: files, pipes and standard input."""

from __future__ import annotations

import io
import stat
import sys
from collections.abc import Iterable
from os import PathLike
from pathlib import Path
from typing import IO, Any, Union

from ..system.errors import DataError

Source = Union[str, "PathLike[str]"]

STDIN = "-"


def list_sources(sources: Source | Iterable[Source]) -> list[Source]:
    """`sources` as a list, also where it is a single path.

    Raises:
        DataError: there is none.
    """
    listed = [sources] if isinstance(sources, (str, PathLike)) else list(sources)
    if not listed:
        raise DataError("No FASTA file was given; name at least one, or - for standard input.")
    return listed


def source_name(source: Source) -> str:
    """What messages call a source."""
    return "standard input" if str(source) == STDIN else str(source)


def is_stream(source: Source) -> bool:
    """Whether a source can be read only once: standard input or a pipe."""
    if str(source) == STDIN:
        return True
    path = Path(source)
    return path.exists() and stat.S_ISFIFO(path.stat().st_mode)


def open_source(source: Source) -> IO[bytes]:
    """The bytes of a source as they are stored; a context manager.

    Raises:
        DataError: it is missing, a folder, or may not be read.
    """
    if str(source) == STDIN:
        if sys.stdin is None:
            raise DataError("standard input is closed; name a FASTA file.")
        return io.BufferedReader(Readable(sys.stdin.buffer, source_name(source)))
    path = Path(source)
    if path.is_dir():
        raise DataError(
            f"{path} is a folder; name the FASTA files in it, for example {path / '*.fasta'}"
        )
    try:
        return path.open("rb")
    except FileNotFoundError:
        where = "" if path.is_absolute() else f" (looked for in {Path.cwd()})"
        raise DataError(f"{path} does not exist{where}.") from None
    except OSError as error:
        raise DataError(f"{path} cannot be read: {error.strerror}.") from None


class Readable(io.RawIOBase):
    """Another stream, for reading: closing this one leaves it open, and its errors are DataErrors.

    Args:
        stream: has `read1`.
        name: what messages call it.
        broken: what it raises where its data is cut short or damaged.
    """

    def __init__(
        self, stream: Any, name: str, broken: tuple[type[Exception], ...] = (OSError,)
    ) -> None:
        self._stream, self._name, self._broken = stream, name, broken

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        try:
            data = self._stream.read1(len(buffer))
        except self._broken as error:
            reason = f"{error}".rstrip(".")
            raise DataError(
                f"{self._name} is cut short or damaged ({reason}); get it once more."
            ) from None
        buffer[: len(data)] = data
        return len(data)
