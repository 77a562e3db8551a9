"""FASTA as people have it, line by line: what is certain is read, and said; the rest is a sentence.

Not by a library: those of this field (dnaio, Biopython, pyfastx) hand over a record when its lines
are joined, and it is at the lines that one sees what is no sequence: comments, numbers, a header
behind a missing line end.
"""

from __future__ import annotations

import functools
import io
import re
import warnings
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import IO, Any

from ..system.errors import DataError
from .sources import Source, list_sources, open_source, source_name
from .unpacking import unpacked

_LONGEST = 1 << 24  # characters of a line or record: 400 times the longest protein known
_LINES_PER_CHECK = 1 << 16
_SHOWN = 40  # characters of a line or header that a message shows
# What some editors and tools leave at the ends of lines: a byte order mark, zero-width spaces, and
# the end-of-file sign of DOS.
_BLANKS = "\ufeff\u200b\u200c\u200d\u2060\x1a \t\r\n\x0b\x0c\xa0"
_NUMBERED = re.compile(r"(?:\d+\s+)?([^\d]*[^\d\s])(?:\s+\d+)?")
_DIGIT = re.compile(r"\d")
_CHAINS = re.compile(r"[:/|+&]")
_BRACKETS = re.compile(r"[()\[\]{}]")
_FULL_STOP = re.compile(r"[^.\-]+\.")
_BINARY = re.compile("[\x00-\x08\x0e-\x1f\x7f\ud800-\udfff\ufffd]")
# The codes of NBRF/PIR, whose records have a line of text between the header and the sequence.
_PIR = re.compile(r"(?:P1|F1|DL|DC|RL|RC|N1|N3|XX);\S")
# What a file without a header begins with, and what it then is.
_FORMATS = (
    (r"@\S*.*", "FASTQ, which is of nucleotides"),
    (r"LOCUS\s", "GenBank"),
    (r"ID\s{3}", "a flat file of UniProt or EMBL"),
    (r"CLUSTAL|MUSCLE", "an alignment of Clustal"),
    (r"!!|PileUp", "an alignment of GCG (MSF)"),
    (r"HEADER\s|ATOM\s|CRYST1|REMARK\s", "a structure (PDB)"),
    (r"data_", "a structure (mmCIF)"),
    (r"<", "a page or an XML file"),
    (r"[{\[]", "JSON"),
    (r"\d+\s+\d+\s*$", "an alignment of PHYLIP"),
    (r"[^,;\t]+[,;\t]", "a table"),
)


class FastaWarning(UserWarning):
    """Something in a FASTA file was no sequence, and was read as what it must be."""


@dataclass
class Notes:
    """What was read as something other than sequence: kind -> (how often, where first).

    The kinds are the keys of `NOTES`.
    """

    seen: dict[str, tuple[int, str]] = field(default_factory=dict)

    def add(self, kind: str, where: str) -> None:
        """Count one more."""
        count, first = self.seen.get(kind, (0, where))
        self.seen[kind] = (count + 1, first)

    def merge(self, name: str, seen: Mapping[str, Sequence[Any]]) -> None:
        """Add what was `seen` in a file of this name."""
        for kind, (count, first) in seen.items():
            before, where = self.seen.get(kind, (0, f"{name}, {first}"))
            self.seen[kind] = (before + count, where)

    def warn(self) -> None:
        """One `FastaWarning` a kind."""
        for kind, (count, first) in self.seen.items():
            once, often = NOTES[kind]
            told = once if count == 1 else often.format(count=f"{count:,}")
            warnings.warn(f"{told}: {first}.", FastaWarning, stacklevel=3)


# Kind: the sentence for one, and for several.
NOTES = {
    "comment": (
        "a line that begins with ; was taken for a comment",
        "{count} lines that begin with ; were taken for comments, the first",
    ),
    "joined": (
        "a header stood behind a sequence, where a line end is missing, and was taken for one",
        "{count} headers stood behind a sequence, where a line end is missing, and were taken for "
        "headers, the first",
    ),
    "numbered": (
        "the numbers at the ends of a line were left out",
        "the numbers at the ends of {count} lines were left out, the first",
    ),
    "stop": (
        "the * (or .) at the end of a protein was left out: it is a stop, not a residue",
        "the * (or .) at the end of {count} proteins was left out: it is a stop, not a residue; "
        "the first",
    ),
    "end mark": (
        "a line // was taken for the end of a record",
        "{count} lines // were taken for ends of records, the first",
    ),
    "pir": (
        "the line behind a header of PIR was taken for its description",
        "the lines behind {count} headers of PIR were taken for descriptions, the first",
    ),
    "encoding": (
        "a header is no UTF-8 and was read as Windows-1252 (Latin-1)",
        "{count} headers are no UTF-8 and were read as Windows-1252 (Latin-1), the first",
    ),
}


def read_fasta(sources: Source | Iterable[Source]) -> Iterator[tuple[str, str]]:
    """Each record of FASTA files, in order.

    Files may be plain or compressed (gzip, bzip2, xz, zstandard, zip): their content tells which,
    not their name. They are UTF-8, or UTF-16 with its mark, whatever the locale. Lines may end in
    LF, CRLF or CR, and the last one in nothing. What is no sequence and certain is read as what it
    is, and one `FastaWarning` a kind says so: see `NOTES`. Lines that begin with `#` are comments.

    Args:
        sources: paths, or "-" for standard input; one or several.

    Yields:
        (header without ">", sequence less its line ends and a final stop). A sequence may be
        empty, and headers may repeat.

    Raises:
        DataError: a file is missing, a folder, unreadable, empty, no FASTA, cut short, or has
            lines of which it is not certain what they mean; the message names line and record.
    """
    notes = Notes()
    for source in list_sources(sources):
        with open_source(source) as file:
            own = Notes()
            yield from parse_fasta(file, source_name(source), own)
            notes.merge(source_name(source), own.seen)
    notes.warn()


def parse_fasta(file: IO[bytes], name: str, notes: Notes) -> Iterator[tuple[str, str]]:
    """Each record of one opened file, as `read_fasta` gives them.

    Args:
        file: plain or compressed bytes; stays open.
        name: what messages call the file.
        notes: takes what was read as something other than sequence.

    Raises:
        DataError: see `read_fasta`.
    """
    lines = _Lines(name, notes)
    count = 0
    for number, line in enumerate(_text(file, name), start=1):
        # Nearly every line: letters alone, in a record.
        letters = line[:-1]
        if letters.isalpha() and lines.is_open and line[-1] == "\n" and line.isascii():
            lines.parts.append(letters)
            if number % _LINES_PER_CHECK == 0 and sum(map(len, lines.parts)) >= _LONGEST:
                raise lines.too_long(number)
            continue
        if len(line) >= _LONGEST:
            raise lines.too_long(number)
        for record in lines.take(number, line.strip(_BLANKS)):
            count += 1
            yield record
    if lines.header is not None:
        count += 1
        yield lines.record()
    if not count:
        raise DataError(f"{name} is empty; expected FASTA: a line >name, then lines of residues.")


class _Lines:
    """The record that is being read, and what becomes of each line that is not plain letters."""

    def __init__(self, name: str, notes: Notes) -> None:
        self.name, self.notes = name, notes
        self.header: str | None = None
        self.header_line = 0
        self.parts: list[str] = []
        self.skip = False  # the next line is a description
        self.is_open = False  # a line of letters is sequence

    def record(self) -> tuple[str, str]:
        """The record so far, less the stop at its end."""
        assert self.header is not None
        sequence = "".join(self.parts)
        # gffread writes a stop as a full stop; elsewhere that is a gap, and never alone at the end.
        ends = sequence[-1:]
        if ends == "*" or (ends == "." and _FULL_STOP.fullmatch(sequence)):
            sequence = sequence.rstrip("*. ")
            self.notes.add("stop", f"record {_short(self.header)!r}")
        return self.header, sequence

    def too_long(self, number: int) -> DataError:
        """The error of a record that would fill the memory."""
        return DataError(
            f"{self.name}, line {number} (record {_short(self.header or '')!r}): expected a "
            f"protein; got more than {_LONGEST:,} characters, as a genome has. Give its proteins."
        )

    def take(self, number: int, line: str) -> Iterator[tuple[str, str]]:
        """Read one line, without blanks around it; a header gives the record before it."""
        if not line or line[0] == "#":
            return
        if line[0] == ">":
            if self.header is not None:
                yield self.record()
            self._begin(number, line[1:])
        elif line[0] == ";":
            self.notes.add("comment", f"line {number}")
        elif self.header is None:
            raise DataError(_not_fasta(self.name, number, line))
        elif self.skip:
            self.skip, self.is_open = False, True
        elif line == "//":
            self.notes.add("end mark", f"line {number}")
        elif "<" not in line and ">" in line:
            before, header = line.split(">", 1)
            yield from self.take(number, before.strip(_BLANKS))
            self.notes.add("joined", f"line {number} ({_short(header)!r})")
            yield from self.take(number, f">{header}")
        else:
            self.parts.append(self._sequence(number, line))

    def _begin(self, number: int, header: str) -> None:
        if not header.isascii():
            header = self._decoded(number, header)
        self.header, self.header_line, self.parts = header, number, []
        self.skip = bool(_PIR.match(header))
        self.is_open = not self.skip
        if self.skip:
            self.notes.add("pir", f"record {_short(header)!r}")

    def _decoded(self, number: int, header: str) -> str:
        """A header as text; bytes that are no UTF-8 came as surrogates."""
        try:
            header.encode()
        except UnicodeEncodeError:
            stored = header.encode("utf-8", "surrogateescape")
            try:
                header = stored.decode("cp1252")
            except UnicodeDecodeError:
                header = stored.decode("latin-1")
            self.notes.add("encoding", f"line {number} ({_short(header)!r})")
        return header

    def _sequence(self, number: int, line: str) -> str:
        """A line of a sequence that has more in it than letters."""
        if odd := _BINARY.search(line):
            raise DataError(self._no_text(number, odd[0]))
        if "<" in line:
            raise self._error(number, f"expected residues; got {_short(line)!r}, which has < in it")
        if _BRACKETS.search(line):
            raise self._error(
                number,
                f"brackets in a sequence, {_short(line)!r}, as around modifications; write the "
                f"plain residues",
            )
        if _DIGIT.search(line):
            numbered = _NUMBERED.fullmatch(line)
            if not numbered:
                raise self._error(number, _numbers(line))
            self.notes.add("numbered", f"line {number}")
            line = numbered[1]
        if chains := _CHAINS.search(line):
            raise self._error(
                number,
                f"{chains[0]!r} in a sequence, which others put between chains; give each chain a "
                f"record of its own",
            )
        return line

    def _error(self, number: int, what: str) -> DataError:
        assert self.header is not None
        return DataError(f"{self.name}, line {number} (record {_short(self.header)!r}): {what}.")

    def _no_text(self, number: int, odd: str) -> str:
        if "\ud800" <= odd <= "\udfff":
            return (
                f"{self.name} is not FASTA: it is no UTF-8 text (byte 0x{ord(odd) - 0xDC00:02x} in "
                f"line {number}). If it is text of another encoding, convert it: iconv -f "
                f"ENCODING -t utf-8."
            )
        return (
            f"{self.name} is not FASTA: line {number} has the control character "
            f"0x{ord(odd):02x}, so it is no text."
        )


def _numbers(line: str) -> str:
    if not any(character.isalpha() for character in line):
        return (
            f"expected residues; got numbers alone, {_short(line)!r}: qualities of a sequencer "
            f"(.qual), or a table"
        )
    return f"expected residues; got digits among them, {_short(line)!r}"


def _not_fasta(name: str, number: int, line: str) -> str:
    """The sentence about text before any header."""
    if odd := _BINARY.search(line):
        return _Lines(name, Notes())._no_text(number, odd[0])
    what = next((what for start, what in _FORMATS if re.match(start, line)), "")
    looks = f" It looks like {what}." if what else ""
    return (
        f"{name} is not FASTA. Expected '>' at beginning of record, in line {number}; got "
        f"{_short(line)!r}.{looks}"
    )


def _short(text: str) -> str:
    """The beginning of a text, for a message."""
    return text if len(text) <= _SHOWN else f"{text[:_SHOWN]}..."


def _text(file: IO[bytes], name: str) -> Iterator[str]:
    """The lines of a file, whatever the locale; bytes that are no UTF-8 come as surrogates."""
    stream = unpacked(file, name)
    start = stream.peek(4)[:4]
    encoding = "utf-8-sig"
    if start.startswith((b"\xff\xfe", b"\xfe\xff")):
        encoding = "utf-16"
    elif start[:2] == b">\0":
        encoding = "utf-16-le"
    elif start[:2] == b"\0>":
        encoding = "utf-16-be"
    errors = "surrogateescape" if encoding == "utf-8-sig" else "replace"
    text = io.TextIOWrapper(stream, encoding=encoding, errors=errors)
    return iter(functools.partial(text.readline, _LONGEST), "")
