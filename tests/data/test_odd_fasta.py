"""FASTA with something in it that is no sequence: read where it is certain, else one sentence."""

import gzip
import io
import os
import subprocess
import sys
import tarfile
import warnings
import zipfile

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from mlx_esm_kernels.data.fasta import NOTES, FastaWarning, read_fasta
from mlx_esm_kernels.data.kinds import OddRecordWarning
from mlx_esm_kernels.data.proteins import load_proteins
from mlx_esm_kernels.data.unpacking import zstd
from mlx_esm_kernels.system.errors import DataError

STORY = b">one\nMKTAY\n>two\nGGSGG\n"
RECORDS = [("one", "MKTAY"), ("two", "GGSGG")]


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("MLX_ESM_KERNELS_CACHE", str(tmp_path / "cache"))


# Certain: it is read, and said


@pytest.mark.parametrize(
    ("content", "records", "said"),
    [
        # Pearson's own format: comments before, between and behind the lines of a sequence.
        (b";LCBO\n>a\n;x\nMKT\n; y\nAY\n", [("a", "MKTAY")], "3 lines that begin with ;.*line 1"),
        (b">a\nMKT>b c\nAY\n", [("a", "MKT"), ("b c", "AY")], "a header stood behind.*line 2"),
        (b">a\nMKT\x1a>b\nAY\n\x1a", [("a", "MKT"), ("b", "AY")], "a header stood behind"),
        (b">a\nMKT>b\nAY>c\nGG\n", [("a", "MKT"), ("b", "AY"), ("c", "GG")], "2 headers stood"),
        # GenBank, EMBOSS and Swiss-Prot number their lines in front, behind, or at both ends.
        (b">a\n        1 MKT AYI 6\n       7 GG\n", [("a", "MKT AYIGG")], "of 2 lines were left"),
        (b">a\nMKTAYI 60\nGG      120\n", [("a", "MKTAYIGG")], "numbers at the ends of 2 lines"),
        (b">a\nMKTAY\n//\n>b\nGG\n//\n", [("a", "MKTAY"), ("b", "GG")], "2 lines // were"),
        (b">P1;CRAB\nALPHA CRYSTALLIN\n  MKTAY*\n", [("P1;CRAB", "MKTAY")], "header of PIR"),
        (b">DL;X\nCRYSTALLIN\nMKTAY\n", [("DL;X", "MKTAY")], "header of PIR"),
        (b">a\nMKTAY*\n>b\nGG**\n>c\nA*K\n", [("a", "MKTAY"), ("b", "GG"), ("c", "A*K")], "stop"),
        (b">a\nMKTAY.\n>b\nG.G.\n", [("a", "MKTAY"), ("b", "G.G.")], "is a stop"),
        (b">a\nMKT\nAY*", [("a", "MKTAY")], "is a stop"),
        (b">Bj\xf6rn \x80\nMKTAY\n", [("Bj\u00f6rn \u20ac", "MKTAY")], "no UTF-8.*Bj\u00f6rn"),
    ],
)  # fmt: skip
def test_what_is_certainly_no_sequence_is_left_out_and_said(write, content, records, said):
    path = write(content)
    with pytest.warns(FastaWarning, match=said) as caught:
        assert list(read_fasta(path)) == records
    assert all(str(path) in str(warning.message) for warning in caught)
    # Encoded, and again from the cache: the same residues and the same words.
    for _ in range(2):
        with pytest.warns(FastaWarning, match=said):
            proteins = load_proteins(path, as_protein=True)
        assert list(proteins.names) == [name for name, _ in records]
        letters = [sequence.replace(" ", "") for _, sequence in records]
        assert proteins.lengths.tolist() == [len(residues) for residues in letters]


@pytest.mark.parametrize(
    "content",
    [
        STORY.replace(b">two", b"\xef\xbb\xbf>two"),  # two files of Windows, one behind the other
        STORY + b"\x1a",  # the end of a file of DOS
        STORY.replace(b"TAY", b"TAY\xc2\xa0 "),  # spaces that do not break, from a page
        STORY.replace(b"GGSGG", b"\xe2\x80\x8bGGSGG"),  # a space without width
        STORY.decode().encode("utf-16"),
        STORY.decode().encode("utf-16-le"),
        STORY.decode().encode("utf-16-be"),
        b"#comment\n" + STORY,
    ],
)
def test_marks_of_editors_are_no_residues(write, content):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert list(read_fasta(write(content))) == RECORDS


def test_notes_of_many_files_are_one_line_a_kind(write):
    paths = [write(b">a\nMK*\n", f"{n}") for n in range(7)]
    with pytest.warns(FastaWarning) as caught:
        load_proteins(paths)
    assert [str(warning.message) for warning in caught] == [
        f"{NOTES['stop'][1].format(count=7)}: {paths[0]}, record 'a'."
    ]


# Not certain: one sentence with file, line and record


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        (b">a\nGG\n>b c\nMKT:AYI\n", r", line 4 \(record 'b c'\): ':' in a sequence.*chains"),
        (b">a\nMKT/AYI\n", r", line 2 \(record 'a'\): '/' in a sequence.*a record of its own"),
        (b">a\nMKT|AYI\n", r", line 2 .*'\|' in a sequence"),
        (b">a\nMKT12AYI\n", r", line 2 .*digits among them, 'MKT12AYI'"),
        (b">a\n40 40 37 12\n", r", line 2 .*numbers alone.*qualities of a sequencer"),
        (b">a\nM(ox)KT\n", r", line 2 .*brackets in a sequence, 'M\(ox\)KT'"),
        (b">a\nM[+16]KT\n", r", line 2 .*brackets"),
        (b">a\nMK<br>T\n", r", line 2 .*has < in it"),
        (b">a\nMK\0T\n", r" is not FASTA: line 2 has the control character 0x00"),
        (b">a\nMK\xffT\n", r" is not FASTA: it is no UTF-8 text .byte 0xff in line 2.*iconv -f"),
        (b"LOCUS       AB\n", r" is not FASTA. Expected '>' .*It looks like GenBank\.$"),
        (b"ID   A_HUMAN\n", r" is not FASTA.*a flat file of UniProt or EMBL"),
        (b"@SRR1\nACGT\n", r" is not FASTA.*FASTQ"),
        (b"CLUSTAL W\n\na MK\n", r" is not FASTA.*Clustal"),
        (b"# STOCKHOLM 1.0\n\na/1-2 MK\n", r" is not FASTA"),
        (b" 2 60\na MK\n", r" is not FASTA.*PHYLIP"),
        (b"HEADER    X\n", r" is not FASTA.*PDB"),
        (b"data_1ABC\n", r" is not FASTA.*mmCIF"),
        (b"name,sequence\na,MK\n", r" is not FASTA.*a table"),
        (b'{"a": 1}\n', r" is not FASTA.*JSON"),
        (b"%PDF-1.4\n", r" is not FASTA: it is a PDF document"),
        (b"7z\xbc\xaf\x27\x1c\0\0", r" is not FASTA: it is a 7-Zip archive; unpack it"),
        (b"Rar!\x1a\x07", r" is not FASTA: it is a RAR archive"),
        (b"\x89HDF\r\n\x1a\n", r" is not FASTA: it is an HDF5 file"),
        (b"version https://git-lfs.github.com/spec/v1\n", r" is not FASTA: .*git lfs pull"),
    ],
)
@pytest.mark.parametrize("use", [lambda path: list(read_fasta(path)), load_proteins])
def test_what_is_not_certain_is_one_sentence(write, use, content, sentence):
    path = write(content, "odd.fasta")
    with pytest.raises(DataError, match=rf"^{path}{sentence}"):
        use(path)


@given(st.binary(max_size=300) | st.binary(max_size=300).map(lambda tail: b">a\nMK" + tail))
@example(b">P1;A")
@example(b">a\n*")
@example(b"PK\x05\x06" + bytes(18))
@example(gzip.compress(gzip.compress(gzip.compress(gzip.compress(gzip.compress(STORY))))))
@pytest.mark.filterwarnings("ignore")
def test_any_bytes_end_in_proteins_or_one_sentence(tmp_path_factory, content):
    path = tmp_path_factory.mktemp("any") / "x"
    path.write_bytes(content)
    records, sentence = [], ""
    try:
        records = list(read_fasta(path))
    except DataError as error:
        sentence = str(error)
    assert records or str(path) in sentence
    assert "\n" not in sentence
    assert len(sentence) < len(str(path)) + 500
    assert all("\n" not in header for header, _ in records)


@pytest.mark.parametrize(
    "content", [b">chr1\n" + b"A" * (1 << 25), b">chr1\n" + (b"ACGT" * 64 + b"\n") * (1 << 17)]
)
def test_a_chromosome_is_refused_before_it_fills_the_memory(write, content):
    path = write(gzip.compress(content, 1))
    with pytest.raises(
        DataError, match=r"\(record 'chr1'\): expected a protein; got more than 16,"
    ):
        load_proteins(path)


# What is packed


def zip_of(members):
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in members.items():
            archive.writestr(name, content)
    return stream.getvalue()


@pytest.mark.parametrize(
    "content",
    [
        zstd.compress(STORY),
        zstd.compress(STORY[:12]) + zstd.compress(STORY[12:]),
        zip_of({"deep/a.fasta": STORY}),
        zip_of({"a.dat": STORY, "__MACOSX/._a.dat": b"\0"}),  # one file, whatever its name
        zip_of({"readme.md": b"no", "a.fa": STORY[:10], "b.faa": STORY[11:]}),
        zip_of({"a.fasta.gz": gzip.compress(STORY)}),
        gzip.compress(zstd.compress(STORY)),
    ],
)
def test_zstandard_and_zip_are_read(write, content):
    assert list(read_fasta(write(content, "a.fasta"))) == RECORDS


def tar_of(content):
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w") as archive:
        member = tarfile.TarInfo("a.fasta")
        member.size = len(content)
        archive.addfile(member, io.BytesIO(content))
    return stream.getvalue()


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        (zstd.compress(STORY * 99)[:-9], "is cut short or damaged"),
        (zip_of({"a.md": b"x", "b.md": b"y"}), r"archive without a file of FASTA .*a\.md, b\.md"),
        (zip_of({}), "is a zip archive without a file of FASTA"),
        (zip_of({"[Content_Types].xml": b"", "xl/workbook.xml": b""}), "an Office document"),
        (zip_of({"a.fasta": STORY})[:-30], "is a zip archive, cut short or damaged"),
        (zip_of({"a.fasta": STORY}).replace(b"a.fasta", b"b.fasta", 1), "cannot be unpacked"),
        (tar_of(STORY), "is a tar archive"),
        (gzip.compress(tar_of(STORY)), "is a tar archive"),
    ],
)  # fmt: skip
def test_what_cannot_be_unpacked_is_called_what_it_is(write, content, sentence):
    with pytest.raises(DataError, match=sentence):
        list(read_fasta(write(content, "a")))


# What is not of proteins

DNA = b">x\nATGGCGTACGTTAGCCTAGGCAACGT\n"


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        (DNA, "looks like nucleotides, not proteins: its record has no other letters, such as 'x'"),
        (DNA.replace(b"T", b"u"), "looks like nucleotides"),
        (DNA.replace(b"TAGC", b"NNGC") * 3 + b">p\nMKTAYIAKQRQISFVK\n", "3 of 4 records have no"),
        (b">s\nCCCHHHHHHHHHCCCCEEEEECCC\n", "looks like secondary structure"),
        (b">a\nMK-TAY\n>b\nMKTTAY\n", "looks like an alignment: 1 of 2 records has gaps"),
        (b">a\nMKtayTAY..\n>b\nMK...TAYGG\n", "looks like an alignment: 2 of 2 records have gaps"),
    ],
)
def test_nucleotides_and_alignments_are_refused_unless_one_insists(write, content, sentence):
    path = write(content)
    for _ in range(2):  # the second time from the cache
        with pytest.raises(DataError, match=f"^{path} .*{sentence}.*--as-protein"):
            load_proteins(path)
    with pytest.warns(OddRecordWarning, match=sentence):
        assert len(load_proteins(path, as_protein=True)) == content.count(b">")


def test_a_few_odd_records_among_proteins_are_said(write):
    proteins = b"".join(b">p%d\nMKTAYIAKQRQISFVKSHFSRQ\n" % n for n in range(4))
    with pytest.warns(OddRecordWarning, match="1 of 5 records has no other letters, such as 'x'"):
        assert len(load_proteins(write(proteins + DNA))) == 5


@pytest.mark.parametrize(
    "sequence",
    [b"GAGAGS" * 6, b"A" * 30, b"GATTACA", b"H" * 30, b"GATC" * 4 + b"KELDVS"],
)
def test_repeats_and_short_peptides_are_proteins(write, sequence):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        load_proteins(write(b">a\n" + sequence + b"\n"))


# The machine


@pytest.mark.slow
def test_hundreds_of_files_are_read_where_few_may_be_open(tmp_path):
    for number in range(300):
        content = f">p{number}\n{'MKTAYIAKQR'[number % 7 :]}\n"
        (tmp_path / f"{number:03d}.fasta").write_text(content)
    script = (
        "import resource, sys\n"
        "resource.setrlimit(resource.RLIMIT_NOFILE, (64, 64))\n"
        "from mlx_esm_kernels.data.proteins import load_proteins\n"
        "proteins = load_proteins(sys.argv[1:])\n"
        "print(len(proteins), proteins.names[299], sum(len(ids) for ids in proteins))\n"
    )
    paths = sorted(map(str, tmp_path.glob("*.fasta")))
    run = subprocess.run(
        [sys.executable, "-c", script, *paths], capture_output=True, text=True, check=False
    )
    residues = sum(10 - number % 7 for number in range(300))
    assert run.stdout == f"300 p299 {residues}\n", run.stderr


def test_no_file_is_read_as_the_locale_has_it(write):
    path = write("> na\u00efve \u03b2\nMKTAY\n".encode())
    script = (
        "import sys; from mlx_esm_kernels.data.proteins import load_proteins\n"
        "for _ in range(2): print(ascii(load_proteins(sys.argv[1]).names[0]))\n"
    )
    # An error wherever the locale would decide.
    flags = ("-X", "warn_default_encoding", "-W", "error::EncodingWarning")
    run = subprocess.run(
        [sys.executable, *flags, "-c", script, str(path)],
        env=os.environ | {"PYTHONUTF8": "0", "LC_ALL": "C"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert run.stdout.splitlines() == [r"' na\xefve \u03b2'"] * 2, run.stderr
