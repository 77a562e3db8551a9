"""Proteins from FASTA to tokens in the cache, and the held-out split."""

import gzip
import io
import os
import shutil
import threading
import tracemalloc
import warnings
from collections import Counter

import numpy as np
import pytest
from hypothesis import assume, example, given
from hypothesis import strategies as st

from mlx_esm_kernels.data import proteins as data
from mlx_esm_kernels.data.alphabet import ESM1B, ESM1B_TOKENS, Alphabet, UnknownResidueWarning
from mlx_esm_kernels.data.proteins import (
    EmptyRecordWarning,
    Proteins,
    load_proteins,
    split_held_out,
)
from mlx_esm_kernels.data.token_table import Table
from mlx_esm_kernels.system.cache import cache_folder
from mlx_esm_kernels.system.errors import DataError

STORY = b">one first protein\nMKTAY\nIAKQR\n>two\nGGSGG\n"


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("MLX_ESM_KERNELS_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


def texts(proteins):
    return [ESM1B.decode(protein) for protein in proteins]


def test_records_without_one_residue_are_an_error(write):
    with pytest.raises(DataError, match="has records, but not one residue"):
        load_proteins(write(b">a\n>b\n \n"))


def test_proteins_are_encoded_in_order_with_their_names(write):
    proteins = load_proteins(write(STORY))
    assert texts(proteins) == ["MKTAYIAKQR", "GGSGG"]
    assert list(proteins.names) == ["one first protein", "two"]
    assert proteins.lengths.tolist() == [10, 5]
    assert proteins[0].dtype == np.uint8
    for kind in (proteins, Proteins.from_sequences(["MK"])):
        with pytest.raises(ValueError, match="read-only"):
            kind[0][0] = 1
    assert repr(proteins) == "Proteins(2 proteins, 15 residues)"


def test_proteins_are_numbered_like_a_sequence(write):
    proteins = load_proteins([write(STORY), write(b">three\nWW\n", "b"), write(STORY, "c")])
    assert [len(proteins[i]) for i in range(5)] == [10, 5, 2, 10, 5]
    assert ESM1B.decode(proteins[-3]) == "WW"
    assert ESM1B.decode(proteins[np.int64(2)]) == "WW"
    assert proteins.names[-1] == "two"
    assert proteins.names[1:3] == ["two", "three"]
    assert "three" in proteins.names
    for wrong in (5, -6):
        with pytest.raises(IndexError, match=rf"there are 5 proteins; got number {wrong}"):
            proteins[wrong]


def test_duplicates_survive(write):
    proteins = load_proteins(write(b">a\nMK\n>a\nMK\n>a\nW\n"))
    assert list(proteins.names) == ["a", "a", "a"]
    assert texts(proteins) == ["MK", "MK", "W"]


def test_a_giant_is_kept_whole(write):
    sequence = b"MKTAYIAKQR" * 3_500
    assert load_proteins(write(b">titin\n" + sequence)).lengths.tolist() == [35_000]


def test_empty_records_are_left_out_with_one_warning(write):
    path = write(b">a\n>b\nMK\n>c\n\n>d\n")
    with pytest.warns(EmptyRecordWarning) as caught:
        proteins = load_proteins(path)
    assert list(proteins.names) == ["b"]
    assert [str(w.message) for w in caught] == [
        "3 records without residues left out, such as 'a', 'c', 'd'."
    ]


def test_unknown_characters_give_one_warning_over_all_files(write):
    paths = [write(b">a\nM*M\n>b\nJK*K\n"), write(b">c\nW*W\n", "b")]
    for _ in range(2):  # the second time from the cache
        with pytest.warns(UnknownResidueWarning) as caught:
            proteins = load_proteins(paths)
        assert [str(w.message) for w in caught] == [
            "4 characters are no residues and were read as <unk>: '*' (3 times), 'J' (1 times)."
        ]
        assert texts(proteins) == ["M<unk>M", "<unk>K<unk>K", "W<unk>W"]


def test_lower_case_and_spaces_inside_sequences(write):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert texts(load_proteins(write(b">a\nmk ta\n\ty\n"))) == ["MKTAY"]


def test_standard_input_can_be_loaded(stdin):
    for content in (STORY, gzip.compress(STORY)):
        stdin(content)
        assert texts(load_proteins("-")) == ["MKTAYIAKQR", "GGSGG"]
    stdin(b"")
    with pytest.raises(DataError, match=r"^standard input is empty"):
        load_proteins("-")


def test_a_pipe_can_be_loaded(tmp_path):
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    writer = threading.Thread(target=pipe.write_bytes, args=(STORY,))
    writer.start()
    assert texts(load_proteins(pipe)) == ["MKTAYIAKQR", "GGSGG"]
    writer.join()


# The cache


@pytest.fixture
def parsed(monkeypatch):
    """Names of the files that were parsed, rather than found in the cache."""
    names = []
    original = data.parse_fasta

    def parse(file, name, notes):
        names.append(name)
        return original(file, name, notes)

    monkeypatch.setattr(data, "parse_fasta", parse)
    return names


def test_the_same_content_is_encoded_once(write, parsed, stdin):
    first = write(STORY)
    load_proteins(first)
    stdin(STORY)
    again = load_proteins([first, write(STORY, "copy.fasta"), "-"])
    assert parsed == [str(first)]
    assert texts(again) == ["MKTAYIAKQR", "GGSGG"] * 3


def test_changed_content_is_encoded_anew(write, parsed):
    path = write(STORY)
    before = path.stat()
    load_proteins(path)
    write(STORY.replace(b"MK", b"WW"))
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))  # neither size nor time tells
    assert texts(load_proteins(path))[0] == "WWTAYIAKQR"
    assert len(parsed) == 2


def test_another_alphabet_is_encoded_anew(write, parsed):
    path = write(STORY)
    other = Alphabet(reversed(ESM1B_TOKENS))
    assert load_proteins(path)[1].tolist() != load_proteins(path, other)[1].tolist()
    assert [other.decode(p) for p in load_proteins(path, other)] == texts(load_proteins(path))
    assert len(parsed) == 2


def test_a_failure_leaves_nothing_behind(write, cache, monkeypatch):
    with pytest.raises(DataError):
        load_proteins(write(STORY + b"\xff"))
    assert list((cache / "tokens").iterdir()) == []

    def interrupt(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(data, "write_about", interrupt)
    with pytest.raises(KeyboardInterrupt):
        load_proteins(write(STORY))
    assert list((cache / "tokens").iterdir()) == []


def test_another_process_may_be_faster(write, cache, monkeypatch):
    path = write(STORY)
    original = data.write_about

    def overtaken(folder, about):
        original(folder, about)
        monkeypatch.setattr(data, "write_about", original)
        load_proteins(path)

    monkeypatch.setattr(data, "write_about", overtaken)
    assert texts(load_proteins(path)) == ["MKTAYIAKQR", "GGSGG"]
    assert len(list((cache / "tokens").iterdir())) == 1


def test_proteins_outlive_their_cache(write, cache):
    proteins = load_proteins(write(STORY))
    shutil.rmtree(cache)
    assert texts(proteins) == ["MKTAYIAKQR", "GGSGG"]


def test_a_cache_folder_that_cannot_be_made_is_named(write, tmp_path, monkeypatch):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("MLX_ESM_KERNELS_CACHE", str(tmp_path / "file"))
    with pytest.raises(DataError, match=r"cache folder cannot be used: .*file\). Set MLX_ESM_KE"):
        load_proteins(write(STORY))


def test_a_full_disk_is_said(write, monkeypatch):
    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(data, "write_table", full)
    with pytest.raises(DataError, match="cache folder cannot be used: No space left on device"):
        load_proteins(write(STORY))


def test_a_file_that_fails_while_read_is_named(write, monkeypatch):
    class Broken(io.BytesIO):
        def read(self, *_):
            raise OSError(5, "Input/output error")

    monkeypatch.setattr(data, "open_source", lambda _: Broken(STORY))
    path = write(STORY)
    with pytest.raises(DataError, match=rf"^{path} cannot be read: Input/output error\.$"):
        load_proteins(path)


def test_the_cache_folder_is_the_users_own(monkeypatch, tmp_path):
    monkeypatch.delenv("MLX_ESM_KERNELS_CACHE")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setenv("HOME", str(tmp_path))
    assert cache_folder().is_relative_to(tmp_path)
    assert cache_folder().name == "mlx-esm-kernels"
    monkeypatch.setenv("MLX_ESM_KERNELS_CACHE", "~/elsewhere")
    assert cache_folder() == tmp_path / "elsewhere"


def test_encoding_takes_constant_memory(write):
    def peak(count):
        path = write(b"".join(b">%d\n%s\n" % (i, b"MKTAYIAKQR" * 40) for i in range(count)))
        tracemalloc.start()
        load_proteins(path)
        _, most = tracemalloc.get_traced_memory()
        tracemalloc.stop()
        return most

    peak(10)  # imports
    assert peak(9_000) - peak(3_000) < 6_000 * 100  # bytes; the sequences alone are four times that


def test_proteins_from_sequences_are_named_by_number():
    proteins = Proteins.from_sequences(["MK", "", "W"])
    assert texts(proteins) == ["MK", "", "W"]
    assert list(proteins.names) == ["0", "1", "2"]
    assert Proteins.from_sequences(["MK"], names=["two\nlines"]).names[0] == "two\nlines"
    with pytest.raises(ValueError, match="got 1 names for 2 sequences"):
        Proteins.from_sequences(["MK", "W"], names=["a"])


# The held-out split


def random_sequences(count, seed=0):
    rng = np.random.default_rng(seed)
    return ["".join(rng.choice(list("ACDEFGHIKL"), 12)) for _ in range(count)]


@given(
    st.lists(st.text("AC", min_size=1, max_size=4), min_size=2, max_size=30).filter(
        lambda sequences: len(set(sequences)) > 1
    ),
    st.floats(0.01, 0.99),
)
def test_duplicates_never_part_and_no_side_is_empty(sequences, fraction):
    proteins = Proteins.from_sequences(sequences)
    train, valid = split_held_out(proteins, fraction)
    assert sorted([*train, *valid]) == list(range(len(sequences)))
    assert len(train) > 0
    assert len(valid) > 0
    assert not {sequences[i] for i in train} & {sequences[i] for i in valid}


@given(
    st.lists(st.lists(st.integers(0, 2**64 - 1) | st.integers(0, 9), max_size=9), max_size=4),
    st.floats(0.01, 0.99),
)
@example([[2**63], [2**63 + 1, 2**63]], 0.5)
@example([[2**63 - 1, 2**63]], 0.5)
def test_the_split_is_that_of_the_distinct_hashes_in_order(tables, fraction):
    """The definition, with all of them at hand; here they are gone through three at a time."""
    hashes = np.array([one for table in tables for one in table], np.uint64)
    distinct = np.unique(hashes)
    assume(len(distinct) > 1)
    below = int(np.searchsorted(distinct, np.uint64(int(fraction * 2.0**64))))
    threshold = distinct[min(max(below, 1), len(distinct) - 1)]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(data, "_BLOCK", 3)
        train, valid = split_held_out(Proteins([WithHashes(table) for table in tables]), fraction)
    assert train.tolist() == np.flatnonzero(hashes >= threshold).tolist()
    assert valid.tolist() == np.flatnonzero(hashes < threshold).tolist()


class WithHashes(Table):
    """A table of which nothing else is known."""

    def __init__(self, hashes):
        self.hashes = np.array(hashes, np.uint64)
        self.lengths = np.ones(len(hashes), np.int32)


def test_the_share_is_about_what_is_asked_for():
    proteins = Proteins.from_sequences(random_sequences(4000))
    for fraction in (0.05, 0.3):
        _, valid = split_held_out(proteins, fraction)
        assert len(valid) == pytest.approx(4000 * fraction, rel=0.2)


def test_the_split_depends_on_residues_alone():
    sequences = random_sequences(300)
    proteins = Proteins.from_sequences(sequences)
    held_out = {sequences[i] for i in split_held_out(proteins)[1]}
    others = [s.lower() for s in reversed(sequences)]
    shuffled = Proteins.from_sequences(others, names=["x"] * 300)
    assert {others[i].upper() for i in split_held_out(shuffled)[1]} == held_out
    # Adding proteins moves none of the earlier ones to the other side.
    more = sequences + random_sequences(300, seed=1)
    grown = {more[i] for i in split_held_out(Proteins.from_sequences(more))[1]}
    assert grown & set(sequences) == held_out


@pytest.mark.parametrize(
    ("sequences", "sentence"),
    [
        (["MK"], "there is one"),
        (["MK"] * 3, "all 3 are the same"),
        ([], "there are none"),
    ],
)
def test_at_least_two_different_proteins_are_needed(sequences, sentence):
    with pytest.raises(DataError, match=rf"At least two different proteins .* {sentence}\.$"):
        split_held_out(Proteins.from_sequences(sequences))


@pytest.mark.parametrize("fraction", [0, 1, -0.1, float("nan")])
def test_the_share_must_be_between_none_and_all(fraction):
    with pytest.raises(ValueError, match="fraction must be between 0 and 1"):
        split_held_out(Proteins.from_sequences(["MK", "W"]), fraction)


def test_hashes_tell_proteins_apart():
    sequences = [*random_sequences(2000), "A", "AA", "AAA"]
    hashes = Proteins.from_sequences(sequences + sequences).hashes
    assert Counter(hashes.tolist()).most_common()[0][1] == 2
    assert hashes[: len(sequences)].tolist() == hashes[len(sequences) :].tolist()
