"""Residues that are kept, and sequences to start from."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mlx_esm_kernels.data.lengths import parse_lengths
from mlx_esm_kernels.data.templates import as_ranges, parse_kept, read_starts


def test_kept_residues_are_positions_from_1_with_both_ends():
    assert np.flatnonzero(parse_kept("1-3, 5", 6)).tolist() == [0, 1, 2, 4]


@given(st.lists(st.booleans(), min_size=1, max_size=40).filter(lambda kept: not all(kept)))
def test_ranges_say_what_they_were_made_of(kept):
    text = as_ranges(np.array(kept))
    assert bool(text) == any(kept)
    if text:
        assert parse_kept(text, len(kept)).tolist() == kept


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("", "'' is no position or range"),
        ("1,,3", "'' is no position or range"),
        ("a-b", "'a-b' is no position or range"),
        ("-3", "'-3' is no position or range"),
        ("0", "0 must go up, and from 1 at least"),
        ("4-2", "4-2 must go up, and from 1 at least"),
        ("5-7", "5-7 goes beyond the end of a protein of 6 residues"),
        ("1-3,3-4", "3-4 overlaps what is kept already"),
        ("1-6", "it keeps every residue, so none is left to draw"),
    ],
)
def test_ranges_that_cannot_be_are_one_sentence(text, sentence):
    with pytest.raises(ValueError, match=sentence):
        parse_kept(text, 6)


def test_starts_are_a_sequence_or_those_of_a_file(tmp_path):
    path = tmp_path / "p.fasta"
    path.write_text(">a\nMKT\nAY\n>b\nmkv\n")
    assert read_starts("mk tw", 3) == ["MKTW"]
    assert read_starts(str(path), 3) == ["MKTAY", "MKV"]
    assert read_starts(str(path), 1) == ["MKTAY"]


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("", "the sequence is empty"),
        ("MKX", "has 'X' at position 3; expected the 20 amino acids alone"),
        ("MK*", r"has '\*' at position 3"),
        ("none.fasta", "There is no file none.fasta, and it is no sequence either"),
    ],
)
def test_starts_that_cannot_be_are_one_sentence(text, sentence):
    with pytest.raises(ValueError, match=sentence):
        read_starts(text, 3)


def test_a_start_in_a_file_is_named_by_its_record(tmp_path):
    path = tmp_path / "p.fasta"
    path.write_text(">a\nMKT\n>b x\nMKB\n")
    with pytest.raises(ValueError, match=r"p.fasta, record 'b' has 'B' at position 3"):
        read_starts(str(path), 3)


def test_lengths_are_a_number_a_range_or_those_of_a_file(tmp_path):
    path = tmp_path / "p.fasta"
    path.write_text(">a\nMKT\n>b\nMKTAY\n>c\nMKTAY\n>long\nMKTAYMKTAY\n")
    assert parse_lengths("80", None).choices.tolist() == [80]
    assert parse_lengths("5-8", None).choices.tolist() == [5, 6, 7, 8]
    assert parse_lengths(str(path), 9).choices.tolist() == [3, 5, 5]
    drawn = {parse_lengths("5-8", None).draw(1, number) for number in range(60)}
    assert drawn == {5, 6, 7, 8}
    assert parse_lengths("5-8", None).draw(1, 7) == parse_lengths("5-8", None).draw(1, 7)


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("0", "a protein has at least 1 residue; got 0"),
        ("0-5", "a protein has at least 1 residue; got 0-5"),
        ("9-5", "9-5 goes down; expected the shorter length first: 5-9"),
        ("-5", "'-5' is no length; expected a number of residues, a range such as 150-260"),
        ("1.5", "'1.5' is no length"),
        ("none.fasta", "'none.fasta' is no length; .* a FASTA file that there is"),
    ],
)
def test_lengths_that_cannot_be_are_one_sentence(text, sentence):
    with pytest.raises(ValueError, match=sentence):
        parse_lengths(text, None)


def test_a_file_without_a_protein_short_enough_is_one_sentence(tmp_path):
    path = tmp_path / "p.fasta"
    path.write_text(">a\nMKT\n")
    with pytest.raises(ValueError, match="has no protein of 1 to 2 residues"):
        parse_lengths(str(path), 2)
