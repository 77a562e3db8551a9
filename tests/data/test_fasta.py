"""FASTA in all its forms, and one clear sentence for what is none."""

import bz2
import gzip
import lzma
import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mlx_esm_kernels.data.alphabet import RESIDUES
from mlx_esm_kernels.data.fasta import read_fasta
from mlx_esm_kernels.data.proteins import load_proteins
from mlx_esm_kernels.system.errors import DataError

STORY = b">one first protein\nMKTAY\nIAKQR\n>two\nGGSGG\n"
RECORDS = [("one first protein", "MKTAYIAKQR"), ("two", "GGSGG")]


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("MLX_ESM_KERNELS_CACHE", str(tmp_path / "cache"))


@pytest.mark.parametrize(
    "content",
    [
        STORY,
        STORY[:-1],  # no last line end
        STORY.replace(b"\n", b"\r\n"),
        STORY.replace(b"\n", b"\r"),
        b"\xef\xbb\xbf" + STORY,  # as Windows editors save it
        b"\n\n" + STORY.replace(b">two", b"\n\n>two"),
        b"# a comment\n" + STORY,
    ],
)
def test_fasta_is_read_however_its_lines_end(write, content):
    assert list(read_fasta(write(content))) == RECORDS


@pytest.mark.parametrize("compress", [gzip.compress, bz2.compress, lzma.compress])
@pytest.mark.parametrize("name", ["a.fasta.gz", "a.fasta", "a.bz2", "a"])
def test_the_content_tells_what_is_compressed_not_the_name(write, compress, name):
    assert list(read_fasta(write(compress(STORY), name))) == RECORDS


def test_a_plain_file_may_be_called_gz(write):
    assert list(read_fasta(write(STORY, "a.fasta.gz"))) == RECORDS


def test_gzip_files_may_be_joined(write):
    path = write(gzip.compress(STORY) + gzip.compress(b">three\nWW\n"))
    assert list(read_fasta(path)) == [*RECORDS, ("three", "WW")]


def test_empty_records_and_repeated_names_are_kept(write):
    path = write(b">a\n>a\nMK\n>\nW\n>a\n")
    assert list(read_fasta(path)) == [("a", ""), ("a", "MK"), ("", "W"), ("a", "")]


def test_letters_outside_ascii_are_kept(write):
    path = write(">Bj\u00f6rn's protein\nMK\u00e9\n".encode())
    assert list(read_fasta(path)) == [("Bj\u00f6rn's protein", "MK\u00e9")]


def test_several_sources_are_read_in_order(write, stdin):
    stdin(b">three\nWW\n")
    paths = [write(STORY), "-", str(write(gzip.compress(STORY), "b"))]
    assert list(read_fasta(paths)) == [*RECORDS, ("three", "WW"), *RECORDS]


def test_standard_input_stays_open(stdin):
    stdin(gzip.compress(STORY))
    assert list(read_fasta("-")) == RECORDS
    assert not sys.stdin.buffer.closed


@given(
    st.lists(
        st.tuples(st.text("ab |=.", max_size=9), st.text(RESIDUES.replace(".", ""), max_size=70))
    ),
    st.integers(1, 80),
    st.sampled_from(["\n", "\r\n"]),
    st.booleans(),
)
def test_what_is_written_is_read(tmp_path_factory, records, width, line_end, is_compressed):
    lines = []
    for name, sequence in records:
        lines.append(f">{name}")
        lines += [sequence[i : i + width] for i in range(0, len(sequence), width)]
    content = line_end.join(lines).encode()
    path = tmp_path_factory.mktemp("fasta") / "a"
    path.write_bytes(gzip.compress(content) if is_compressed else content)
    if records:
        assert list(read_fasta(path)) == [(name.rstrip(), s) for name, s in records]
    else:
        with pytest.raises(DataError, match="is empty"):
            list(read_fasta(path))


# Files that cannot be used: one clear sentence that names them


@pytest.mark.parametrize("use", [lambda path: list(read_fasta(path)), load_proteins])
@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        (b"", "is empty; expected FASTA"),
        (b"\n \n", "is empty; expected FASTA"),
        (gzip.compress(b""), "is empty; expected FASTA"),
        (b"MKTAY\n>a\nMK\n", "is not FASTA. .*Expected '>' at beginning of record"),
        (b"@read\nACGT\n+\n!!!!\n", "is not FASTA"),
        (b"<!DOCTYPE html>\n", "is not FASTA"),
        (b"PK\x03\x04\xff\xfe\x00", "is not FASTA"),
        (b">a\nMK\n>b\n\xff\xfeMK\n", "is not FASTA: it is no UTF-8 text .byte 0xff"),
        (gzip.compress(STORY * 999)[:-20], "is cut short or damaged .*get it once more"),
        (gzip.compress(STORY)[:5], "is cut short or damaged"),
        (gzip.compress(STORY)[:-8] + bytes(8), "is cut short or damaged"),
        (gzip.compress(STORY) + b"junk", "is cut short or damaged"),
        (lzma.compress(STORY)[:-9], "is cut short or damaged"),
    ],
)
def test_a_file_that_cannot_be_used_is_named(write, use, content, sentence):
    path = write(content, "odd.fasta")
    with pytest.raises(DataError, match=rf"^{path} {sentence}"):
        use(path)


@pytest.mark.parametrize("use", [lambda path: list(read_fasta(path)), load_proteins])
def test_missing_files_and_folders_are_named(tmp_path, monkeypatch, use):
    with pytest.raises(DataError, match=rf"^{tmp_path} is a folder; name the FASTA files in it"):
        use(tmp_path)
    monkeypatch.chdir(tmp_path)
    with pytest.raises(DataError, match=rf"^no.fasta does not exist \(looked for in {tmp_path}\)"):
        use("no.fasta")
    (tmp_path / "loop").symlink_to(tmp_path / "loop")
    with pytest.raises(DataError, match=r"loop cannot be read: .*symbolic links"):
        use(tmp_path / "loop")
    with pytest.raises(DataError, match="No FASTA file was given"):
        use([])
