"""What is counted in each protein, and the divergence of counts."""

import math
from collections import Counter
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from mlx_esm_kernels.data.alphabet import ESM1_ALPHABET, ESM1B, STANDARD_RESIDUES
from mlx_esm_kernels.data.composition import count_proteins, divergence
from mlx_esm_kernels.data.proteins import Proteins

some_counts = arrays(np.int64, 20, elements=st.integers(0, 10**6)).filter(np.any)


def counted(sequences, alphabet=ESM1B):
    proteins = Proteins.from_sequences(sequences, alphabet)
    return count_proteins(proteins, np.arange(len(proteins)), alphabet)


@given(some_counts, some_counts)
def test_a_divergence_is_at_least_0(counts, reference):
    assert 0 <= divergence(counts, reference) < math.inf


@given(some_counts, st.integers(1, 50))
def test_it_is_0_for_the_same_shares(counts, times):
    # Of a reference that is as the counts once its own have started at one.
    assert divergence(counts + 1, times * (counts + 1) - 1) == pytest.approx(0, abs=1e-12)


def test_it_is_the_sum_of_its_definition():
    counts, reference = np.array([3, 1, 0]), np.array([4, 0, 5])
    expected = 0.75 * math.log(0.75 / (5 / 12)) + 0.25 * math.log(0.25 / (1 / 12))
    assert divergence(counts, reference) == pytest.approx(expected)


def test_nothing_counted_has_no_divergence():
    assert np.isnan(divergence(np.zeros(20, np.int64), np.ones(20, np.int64)))


@pytest.mark.parametrize("alphabet", [ESM1B, ESM1_ALPHABET])
def test_counts_are_those_of_the_letters(alphabet):
    sequences = ["MKTAYIAKQRQISFVKSHFSRQ", "AXAMBM", "C"]
    counts = counted(sequences, alphabet)
    for row, sequence in enumerate(sequences):
        letters = Counter(sequence)
        pairs = Counter(pairwise(sequence))
        assert counts.residues[row].tolist() == [letters[a] for a in STANDARD_RESIDUES]
        assert counts.pairs[row].tolist() == [
            pairs[a, b] for a in STANDARD_RESIDUES for b in STANDARD_RESIDUES
        ]
    assert counts.lengths.tolist() == [22, 6, 1]
    assert counts.begins_with_m.tolist() == [1, 0, 0]
    assert counts.entropies.sum(axis=1).tolist() == [11, 0, 0]


def test_windows_of_low_complexity_are_counted():
    assert counted(["A" * 30, "ACDEFGHIKLMNPQ"]).low.tolist() == [19, 0]


def test_some_of_the_proteins_are_in_the_order_that_is_asked_for():
    counts = counted(["M", "CC", "WWW"]).of(np.array([2, 0]))
    assert counts.lengths.tolist() == [3, 1]
    assert counts.residues.sum(axis=1).tolist() == [3, 1]
