"""The nearest relative, by alignment."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mlx_esm_kernels.data import nearest as module
from mlx_esm_kernels.data.alphabet import ESM1_ALPHABET, ESM1B, STANDARD_RESIDUES
from mlx_esm_kernels.data.nearest import align, letters, nearest
from mlx_esm_kernels.data.proteins import Proteins

some_residues = st.text(STANDARD_RESIDUES, min_size=1, max_size=40)


def at_random(count, length, seed=0):
    rng = np.random.default_rng(seed)
    return ["".join(rng.choice(list(STANDARD_RESIDUES), length)) for _ in range(count)]


def found(queries, others, alphabet=ESM1B):
    proteins, among = (Proteins.from_sequences(some, alphabet) for some in (queries, others))
    places = np.arange(len(queries)), np.arange(len(others))
    return nearest(proteins, places[0], among, places[1], alphabet)


def changed(text, share, seed=0):
    """A text with so many of its residues replaced by others."""
    rng = np.random.default_rng(seed)
    residues = list(text)
    for place in rng.permutation(len(text))[: round(share * len(text))]:
        residues[place] = rng.choice([a for a in STANDARD_RESIDUES if a != residues[place]])
    return "".join(residues)


@given(some_residues)
def test_a_protein_is_identical_to_itself(text):
    assert align(text, text) == (1.0, 1.0)


@settings(max_examples=30)
@given(some_residues, some_residues)
def test_shares_are_between_0_and_1(one, other):
    assert all(0 <= share <= 1 for share in align(one, other))


def test_identity_and_coverage_are_by_columns_and_residues():
    inside = "WWHKPCYDMFWW"
    identity, coverage = align(f"{'A' * 12}{inside}", f"{'G' * 30}{inside}")
    assert (identity, coverage) == (1.0, 0.5)
    # Two residues more on one side are two columns that are not the same.
    left, right = "WHKPCYDMFW", "CWPHMYKDFC"
    assert align(f"{left}{right}", f"{left}GG{right}") == (pytest.approx(20 / 22), 1.0)


def test_what_is_no_residue_is_like_nothing():
    identity, _ = align("WHKPXXDMFW", "WHKPXXDMFW")
    assert identity == pytest.approx(0.8)
    assert align(4 * "X", 4 * "X") == (0.0, 0.0)


@pytest.mark.parametrize("alphabet", [ESM1B, ESM1_ALPHABET])
def test_letters_are_residues_or_x(alphabet):
    assert letters(alphabet.encode("MKBU*Y"), alphabet) == "MK" + 3 * "X" + "Y"


@pytest.mark.parametrize("identity", [1.0, 0.9, 0.5])
def test_a_relative_is_found_among_many(identity):
    others = at_random(300, 120)
    query = changed(others[137], 1 - identity)
    [relative] = found([query], others)
    assert relative.place == 137
    assert relative.identity == pytest.approx(identity, abs=0.05)
    assert relative.coverage > 0.9


def test_a_relative_is_found_in_whatever_block(monkeypatch):
    monkeypatch.setattr(module, "_BLOCK", 7)
    monkeypatch.setattr(module, "_QUERIES", 2)
    others = at_random(30, 60)
    relatives = found([others[i] for i in (0, 13, 29)], others)
    assert [one.place for one in relatives] == [0, 13, 29]


def test_a_protein_is_no_relative_of_itself_but_its_copy_is():
    proteins = Proteins.from_sequences(["MKTAYIAKQRQ", "WWWWHHHHCCCC", "MKTAYIAKQRQ"])
    places = np.arange(3)
    relatives = nearest(proteins, places, proteins, places, ESM1B)
    assert [one and one.place for one in relatives][::2] == [2, 0]
    assert relatives[0].identity == 1.0
    assert relatives[1] is None or relatives[1].identity < 1


def test_proteins_of_a_few_letters_have_relatives_or_none():
    assert found(["M", "XX", "MK"], ["X", "MK"])[1] is None
    assert found(["MK"], ["WWW", "MK"])[0].place == 1


def test_of_very_long_proteins_the_beginning_is_aligned(monkeypatch):
    monkeypatch.setattr(module, "MOST_RESIDUES", 20)
    text = at_random(1, 50)[0]
    [relative] = found([text], [text[:20] + "W" * 30])
    assert (relative.identity, relative.coverage) == (1.0, 1.0)
