"""The standard error of a mean over targets, which are not independent within a protein."""

import numpy as np
import pytest

from mlx_esm_kernels.inference.clustered import clustered_mean


def test_the_mean_is_over_values_and_the_error_over_proteins():
    values, owners = np.array([1.0, 3.0, 5.0]), np.array([7, 7, 2])
    found = clustered_mean(values, owners)
    assert found.value == pytest.approx(3)
    # residues of the proteins: 4 - 3 * 2 and 5 - 3 * 1
    assert found.error == pytest.approx((2 * (2**2 + 2**2)) ** 0.5 / 3)


def test_one_value_a_protein_gives_the_textbook_error():
    values = np.random.default_rng(0).normal(size=50)
    found = clustered_mean(values, np.arange(50))
    assert found.error == pytest.approx(values.std(ddof=1) / 50**0.5)


def test_one_protein_has_no_error():
    assert clustered_mean(np.array([1.0, 2.0]), np.array([0, 0])).error is None


def test_the_order_of_the_targets_does_not_matter():
    rng = np.random.default_rng(0)
    values, owners = rng.normal(size=90), rng.integers(20, size=90)
    order = rng.permutation(90)
    here, there = clustered_mean(values, owners), clustered_mean(values[order], owners[order])
    assert (here.value, here.error) == pytest.approx((there.value, there.error))


def simulate(rng, proteins=60):
    """Targets of proteins of all lengths, each with a difficulty of its own that grows with it."""
    counts = rng.integers(1, 40, size=proteins)
    owners = np.repeat(np.arange(proteins), counts)
    difficulty = rng.normal(2.8 + 0.01 * counts, 0.4)
    return difficulty[owners] + rng.exponential(size=len(owners)) - 1, owners


def test_the_error_is_how_far_the_mean_differs_between_samples_of_proteins():
    rng = np.random.default_rng(0)
    found = [clustered_mean(*simulate(rng)) for _ in range(1500)]
    spread = np.std([mean.value for mean in found])
    assert np.mean([mean.error for mean in found]) == pytest.approx(spread, rel=0.08)
    # As if targets were independent it would be far too small.
    naive = [values.std() / len(values) ** 0.5 for values, _ in (simulate(rng) for _ in range(200))]
    assert np.mean(naive) < 0.6 * spread
