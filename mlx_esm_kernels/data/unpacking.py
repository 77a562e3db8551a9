"""Compressed files, and files of other kinds: the first bytes tell, as names are often wrong."""

from __future__ import annotations

import bz2
import gzip
import io
import lzma
import shutil
import sys
import tempfile
import textwrap
import zipfile
import zlib
from collections.abc import Callable
from typing import IO, Any

from ..system.errors import DataError
from .sources import Readable

if sys.version_info >= (3, 14):
    from compression import zstd
else:
    from backports import zstd

_OPENERS: tuple[tuple[bytes, Callable[[Any], Any]], ...] = (
    (b"\x1f\x8b", lambda file: gzip.GzipFile(fileobj=file)),
    (b"BZh", bz2.BZ2File),
    (b"\xfd7zXZ\x00", lzma.LZMAFile),
    (b"\x28\xb5\x2f\xfd", zstd.ZstdFile),
)
# What the decompressors raise where the data is cut short or damaged.
_BROKEN = (EOFError, OSError, zlib.error, lzma.LZMAError, zstd.ZstdError)

# What else people give, by its first bytes: (bytes, what it is, what to do).
_OTHERS: tuple[tuple[bytes, str, str], ...] = (
    (b"7z\xbc\xaf\x27\x1c", "a 7-Zip archive", "unpack it (7z x)"),
    (b"Rar!", "a RAR archive", "unpack it (unrar x)"),
    (b"\x04\x22\x4d\x18", "compressed by lz4", "unpack it (lz4 -d)"),
    (b"\x1f\x9d", "compressed by compress", "unpack it (gzip -d)"),
    (b"LZIP", "compressed by lzip", "unpack it (lzip -d)"),
    (b"\x5d\x00\x00", "compressed by lzma", "unpack it (xz -d --format=lzma)"),
    (b"%PDF", "a PDF document", "copy the sequences into a text file"),
    (b"{\\rtf", "a document of a word processor (RTF)", "save it as plain text"),
    (b"\xd0\xcf\x11\xe0", "an old Office document", "save it as plain text"),
    (b"\x89HDF", "an HDF5 file", "export the sequences as FASTA"),
    (b"PAR1", "a Parquet table", "export the sequences as FASTA"),
    (b"SQLite format 3", "an SQLite database", "export the sequences as FASTA"),
    (b"\x93NUMPY", "an array of numpy", "give the FASTA file that it was made from"),
    (b"\x89PNG", "a picture (PNG)", "give the FASTA file"),
    (b"\xff\xd8\xff", "a picture (JPEG)", "give the FASTA file"),
    (b"BAM\x01", "a BAM file", "give proteins as FASTA"),
    (b"ABIF", "a trace of a sequencer (ABI)", "give proteins as FASTA"),
    (b"version https://git-lfs", "a pointer of Git LFS, not the file itself", "run git lfs pull"),
)
_TAR_AT = 257
STRUCTURE = "a structure (PDB or mmCIF)"
STRUCTURE_SUFFIXES = (".pdb", ".ent", ".cif", ".mmcif")
_SUFFIXES = {
    STRUCTURE: STRUCTURE_SUFFIXES,
    "FASTA": (".fasta", ".fa", ".faa", ".fas", ".fsa", ".pep", ".seq", ".aa", ".txt", ".mpfa"),
    "csv": (".csv", ".tsv", ".txt"),
}
_ZIP = b"PK\x03\x04"
_EMPTY_ZIP = b"PK\x05\x06"
_MOST_LAYERS = 4  # of compression, one around the other


def unpacked(
    file: IO[bytes], name: str, layers: int = _MOST_LAYERS, expected: str = "FASTA"
) -> io.BufferedReader:
    """The text bytes in a file that may be plain, gzip, bzip2, xz, zstandard or zip, once or twice.

    Args:
        file: the bytes as they are stored; stays open.
        name: what messages call it.
        layers: how many times over it may be compressed.
        expected: what it is not, where it is something else.

    Raises:
        DataError: it is another kind of file, which is named, or (when it is read) damaged.
    """
    stream: Any = io.BufferedReader(Readable(file, name), buffer_size=1 << 18)
    for rest in reversed(range(layers)):
        start = stream.peek(512)
        if start.startswith((_ZIP, _EMPTY_ZIP)):
            inner: Any = _open_zip(stream, name, rest, expected)
        else:
            opener = next((opener for magic, opener in _OPENERS if start.startswith(magic)), None)
            if opener is None:
                _refuse_others(start, name, expected)
                text: io.BufferedReader = stream
                return text
            inner = opener(stream)
        stream = io.BufferedReader(Readable(inner, name, _BROKEN), buffer_size=1 << 18)
    raise DataError(f"{name} is compressed {_MOST_LAYERS} times over or more; unpack it.")


def _refuse_others(start: bytes, name: str, expected: str) -> None:
    for magic, what, advice in _OTHERS:
        if start.startswith(magic):
            raise DataError(f"{name} is not {expected}: it is {what}; {advice}.")
    if start[_TAR_AT : _TAR_AT + 5] == b"ustar":
        raise DataError(f"{name} is not {expected}: it is a tar archive; unpack it (tar -xf).")


def _open_zip(stream: io.BufferedReader, name: str, layers: int, expected: str) -> Any:
    """The one file, or all FASTA files one after the other, of a zip archive."""
    # zip has its contents at the end, and a stream cannot go back.
    copy = tempfile.TemporaryFile()  # noqa: SIM115  (closed with what reads it)
    shutil.copyfileobj(stream, copy)
    try:
        archive = zipfile.ZipFile(copy)
    except Exception as error:  # a damaged zip can raise anything
        raise DataError(
            f"{name} is not {expected}: it is a zip archive, cut short or damaged "
            f"({_brief(error)}); get it once more."
        ) from None
    members = [m for m in archive.infolist() if _is_file(m.filename)]
    names = [member.filename for member in members]
    if "[Content_Types].xml" in names:
        raise DataError(
            f"{name} is not {expected}: it is an Office document (.xlsx, .docx); save it as "
            f"plain text (a table as CSV UTF-8)."
        )
    chosen = [m for m in members if m.filename.lower().endswith(_SUFFIXES[expected])]
    if not chosen and len(members) == 1:
        chosen = members
    if not chosen:
        some = ", ".join(map(_brief, names[:3]))
        held = f"it holds {some}{' ...' if len(names) > 3 else ''}" if names else ""
        raise DataError(
            f"{name} is not {expected}: it is a zip archive without a file of {expected}"
            f"{f' ({held})' if held else ''}; unpack it and give that."
        )
    if expected == STRUCTURE and len(chosen) > 1:
        raise DataError(
            f"{name} is a zip archive of {len(chosen)} structures; unpack it and give the folder."
        )
    if any(member.flag_bits & 1 for member in chosen):
        raise DataError(f"{name} is a zip archive with a password; unpack it first.")
    return _Members(archive, chosen, name, layers, expected)


def _is_file(member: str) -> bool:
    """Neither a folder nor what macOS adds to an archive."""
    return not member.startswith("__MACOSX/") and not member.endswith(("/", ".DS_Store"))


def _brief(what: object) -> str:
    """A reason or a name, as much of it as a sentence takes."""
    return textwrap.shorten(f"{what}".rstrip("."), 60)


class _Members:
    """The members of a zip archive, end to end, each ending its last line."""

    def __init__(
        self,
        archive: zipfile.ZipFile,
        members: list[zipfile.ZipInfo],
        name: str,
        layers: int,
        expected: str,
    ) -> None:
        self._archive, self._members = archive, list(members)
        self._name, self._layers, self._expected = name, layers, expected
        self._current: Any = None

    def read1(self, size: int) -> bytes:
        try:
            return self._read1(size)
        except DataError:
            raise
        except Exception as error:  # as above
            raise DataError(
                f"{self._name} is a zip archive that cannot be unpacked ({_brief(error)}); get it "
                f"once more."
            ) from None

    def _read1(self, size: int) -> bytes:
        while True:
            if self._current is None:
                if not self._members:
                    return b""
                member = self._archive.open(self._members.pop(0))
                self._current = unpacked(member, self._name, self._layers, self._expected)
            data: bytes = self._current.read1(size)
            if data:
                return data
            self._current = None
            return b"\n"
