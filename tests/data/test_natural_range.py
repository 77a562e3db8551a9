"""Natural sets of similar lengths, and figures beside theirs."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mlx_esm_kernels.data import natural_range
from mlx_esm_kernels.data.alphabet import ESM1B, STANDARD_RESIDUES
from mlx_esm_kernels.data.composition import count_proteins, divergence
from mlx_esm_kernels.data.natural_range import compare
from mlx_esm_kernels.data.proteins import Proteins
from mlx_esm_kernels.data.similar_lengths import SimilarLengths

CYSTEINE = STANDARD_RESIDUES.index("C")
some_lengths = st.lists(st.integers(1, 1000), min_size=1, max_size=60).map(np.array)


def counted(sequences):
    proteins = Proteins.from_sequences(sequences)
    return count_proteins(proteins, np.arange(len(proteins)), ESM1B)


def drawn(count, seed=0, *, cysteine=0.01, shortest=40, longest=60):
    rng = np.random.default_rng(seed)
    shares = np.full(20, (1 - cysteine) / 19)
    shares[CYSTEINE] = cysteine
    return [
        "M" + "".join(rng.choice(list(STANDARD_RESIDUES), int(length), p=shares))
        for length in rng.integers(shortest, longest, size=count)
    ]


@pytest.fixture(autouse=True)
def _few_draws(monkeypatch):
    monkeypatch.setattr(natural_range, "_MOST_DRAWS", 200)


@given(some_lengths, some_lengths, st.integers(0, 100))
def test_a_draw_is_of_different_proteins(lengths, wanted, seed):
    sets = SimilarLengths(lengths, wanted, len(lengths))
    places = sets.draw(np.random.default_rng(seed))
    assert len(places) == len(set(places.tolist())) == min(len(lengths), len(wanted))
    assert set(places.tolist()) <= set(range(len(lengths)))


def test_a_draw_has_about_the_lengths_that_are_wanted():
    rng = np.random.default_rng(0)
    lengths = rng.permutation(2000)
    wanted = rng.integers(300, 500, size=40)
    sets = SimilarLengths(lengths, wanted, 1000)
    for seed in range(20):
        found = np.sort(lengths[sets.draw(np.random.default_rng(seed))])
        assert np.abs(found - np.sort(wanted)).max() < 200
        assert abs(found.mean() - wanted.mean()) < 25


def test_every_protein_of_a_length_has_a_chance_to_be_drawn():
    sets = SimilarLengths(np.full(100, 50), np.full(10, 50), 50)
    rng = np.random.default_rng(0)
    seen = np.bincount(np.concatenate([sets.draw(rng) for _ in range(500)]), minlength=100)
    assert seen.min() > 10
    assert seen.max() < 150


def test_the_same_seed_gives_the_same_and_another_one_does_not():
    generated, natural = counted(drawn(8)), counted(drawn(60, 1))
    first = compare(generated, natural, 3)
    assert compare(generated, natural, 3) == first
    assert compare(generated, natural, 4) != first


def test_figures_are_those_of_their_definition():
    generated, natural = ["MCCA", "MCCA", "AXCC"], ["MKTAYIA", "AKQRQIS", "MM"]
    found = compare(counted(generated), counted(natural), 0)
    assert found.figures["begin with M"].value == pytest.approx(2 / 3)
    assert found.figures["repeats"].value == pytest.approx(1 / 3)
    assert found.figures["low complexity"].value is None
    assert found.residues[CYSTEINE].value == pytest.approx(6 / 11)
    texts = "".join(generated), "".join(natural)
    counts = [np.array([text.count(a) for a in STANDARD_RESIDUES]) for text in texts]
    assert found.figures["composition"].value == pytest.approx(divergence(*counts))


def test_a_natural_set_is_compared_with_the_others():
    # Of two natural proteins one is drawn, and is all unlike the other.
    found = compare(counted(["AAAA"]), counted(["AAAA", "CCCC"]), 0)
    unlike = divergence(np.array([4] + [0] * 19), np.array([0, 4] + [0] * 18))
    usual = found.figures["composition"].natural
    assert usual.least == usual.most == pytest.approx(unlike)


def test_what_comes_from_the_same_is_within_and_more_cysteine_is_beyond():
    natural = counted(drawn(200, 1))
    same = compare(counted(drawn(30, 2)), natural, 0)
    assert not same.figures["composition"].is_beyond
    assert not same.residues[CYSTEINE].is_beyond
    more = compare(counted(drawn(30, 2, cysteine=0.11)), natural, 0)
    assert more.figures["composition"].is_beyond
    assert more.residues[CYSTEINE].is_beyond
    assert more.residues[CYSTEINE].value > 8 * more.residues[CYSTEINE].natural.most / 2


def test_few_natural_proteins_give_smaller_sets_and_one_gives_none():
    few = compare(counted(drawn(30)), counted(drawn(9, 1)), 0)
    assert few.size == 4
    one = compare(counted(drawn(30)), counted(drawn(1, 1)), 0)
    assert (one.size, one.draws, one.figures["pairs"].natural) == (0, 0, None)
    assert not one.figures["pairs"].is_beyond
