"""FASTA files as people have them: plain or compressed, one or many, or standard input."""

from __future__ import annotations

import bz2
import gzip
import io
import lzma
import stat
import sys
import zlib
from collections.abc import Iterable, Iterator
from os import PathLike
from pathlib import Path
from typing import IO, Any, BinaryIO, Union, cast

import dnaio
from dnaio.exceptions import FastaFormatError

from ..system.errors import DataError

Source = Union[str, "PathLike[str]"]

STDIN = "-"
_BYTE_ORDER_MARK = b"\xef\xbb\xbf"
# What the decompressors raise where the data is cut short or damaged.
_BROKEN = (EOFError, OSError, zlib.error, lzma.LZMAError)


def read_fasta(sources: Source | Iterable[Source]) -> Iterator[tuple[str, str]]:
    """Each record of FASTA files, in order.

    Files may be plain or compressed (gzip, bzip2, xz): their content tells which, not their name.
    Lines may end in LF, CRLF or CR, and the last one in nothing. Lines that begin with `#` are
    comments.

    Args:
        sources: paths, or "-" for standard input; one or several.

    Yields:
        (header without ">", sequence less its line ends). A sequence may be empty, and headers may
        repeat.

    Raises:
        DataError: a file is missing, a folder, unreadable, empty, no FASTA, or cut short.
    """
    for source in list_sources(sources):
        with open_source(source) as file:
            yield from parse_fasta(file, source_name(source))


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
        return io.BufferedReader(_Readable(sys.stdin.buffer, source_name(source)))
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


def parse_fasta(file: IO[bytes], name: str) -> Iterator[tuple[str, str]]:
    """Each record of one opened file, as `read_fasta` gives them.

    Args:
        file: plain or compressed bytes; stays open.
        name: what messages call the file.

    Raises:
        DataError: the file is empty, no FASTA, or cut short.
    """
    text = io.BufferedReader(_Readable(_decompressed(file, name), name), buffer_size=1 << 18)
    if text.peek(3)[:3] == _BYTE_ORDER_MARK:
        text.read(3)
    count = 0
    try:
        # Our own record, because dnaio's refuses letters outside ASCII.
        for record in dnaio.FastaReader(cast(BinaryIO, text), sequence_class=_record):
            count += 1
            yield cast("tuple[str, str]", record)
    except FastaFormatError as error:
        raise DataError(f"{name} is not FASTA. {error}") from None
    except UnicodeDecodeError as error:
        byte = error.object[error.start]
        raise DataError(
            f"{name} is not FASTA: it is no UTF-8 text (byte 0x{byte:02x} near record {count + 1})."
        ) from None
    if not count:
        raise DataError(f"{name} is empty; expected FASTA: a line >name, then lines of residues.")


class _Readable(io.RawIOBase):
    """Another stream, for reading: closing this one leaves it open, and its errors are DataErrors.

    dnaio closes what it has read, and must not close standard input.
    """

    def __init__(self, stream: Any, name: str) -> None:
        self._stream, self._name = stream, name

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        try:
            data = self._stream.read1(len(buffer))
        except _BROKEN as error:
            reason = f"{error}".rstrip(".")
            raise DataError(
                f"{self._name} is cut short or damaged ({reason}); get it once more."
            ) from None
        buffer[: len(data)] = data
        return len(data)


def _decompressed(file: IO[bytes], name: str) -> Any:
    """`file` as text bytes. The first bytes decide: names are often wrong."""
    buffered = io.BufferedReader(_Readable(file, name))
    start = buffered.peek(6)
    if start.startswith(b"\x1f\x8b"):
        return gzip.GzipFile(fileobj=buffered)
    if start.startswith(b"BZh"):
        return bz2.BZ2File(buffered)
    if start.startswith(b"\xfd7zXZ\x00"):
        return lzma.LZMAFile(buffered)
    return buffered


def _record(name: str, sequence: str, qualities: None) -> tuple[str, str]:
    return name, sequence
