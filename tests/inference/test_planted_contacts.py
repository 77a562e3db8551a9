"""Pairs that were planted in synthetic families: whether a model gives away that it knows."""

import numpy as np
import pytest
from random_models import esm1, esm1b

from mlx_esm_kernels.data.proteins import split_held_out
from mlx_esm_kernels.data.synthetic import SyntheticFamilies, make_sample
from mlx_esm_kernels.inference import planted_contacts
from mlx_esm_kernels.inference.planted_contacts import (
    planted_precision,
    precision_at,
)


def test_precision_counts_the_surest_pairs():
    sureness = np.zeros((5, 5))
    for value, (i, j) in zip((9, 8, 7), ((0, 4), (1, 2), (0, 1)), strict=True):
        sureness[i, j] = value
    pairs = np.array([[0, 4], [0, 1]])
    assert precision_at(sureness, pairs, 1) == 1
    assert precision_at(sureness, pairs, 2) == 1 / 2
    assert precision_at(sureness, pairs, 3) == 2 / 3


@pytest.mark.parametrize(
    ("model", "measure"),
    [
        (esm1b(contact_head=False), "categorical Jacobian"),
        (esm1(contact_head=False), "categorical Jacobian"),  # of another alphabet
        (esm1b(), "contact regression"),
    ],
)
def test_a_model_that_was_never_trained_finds_them_by_chance(model, measure):
    families = make_sample(num_proteins=60, shortest=16, longest=20)
    found = planted_precision(model, families, np.arange(60))
    assert found.measure == measure
    assert found.num_proteins == 16
    assert found.at_all < 0.25
    assert 0 < found.chance < 0.05 < found.chance_at_distance < 0.5


def test_a_model_that_knows_them_finds_all(monkeypatch):
    families = make_sample(num_proteins=20, num_families=1)
    (family,) = families.families

    def known(model, ids):
        found = np.random.default_rng(0).random((len(ids), len(ids)))
        found[tuple(family.pairs.T)] = 30
        return found + found.T

    monkeypatch.setattr(planted_contacts, "couplings", known)
    found = planted_precision(esm1b(contact_head=False), families, np.arange(20))
    assert (found.at_all, found.at_half) == (1, 1)


def test_families_without_pairs_have_nothing_to_find():
    alone = [family.without_pairs() for family in make_sample(num_proteins=1).families]
    families = SyntheticFamilies(alone, 20, 0)
    assert planted_precision(esm1b(), families, np.arange(20)) is None


def test_only_the_proteins_that_were_given_are_looked_at(monkeypatch):
    families = make_sample(num_proteins=200)
    _, held_out = split_held_out(families.proteins)
    seen = []

    def noted(model, ids):
        seen.append(ids.tobytes())
        return np.zeros((len(ids), len(ids)))

    monkeypatch.setattr(planted_contacts, "couplings", noted)
    planted_precision(esm1b(contact_head=False), families, held_out)
    assert seen
    assert set(seen) <= {families.proteins[i].tobytes() for i in held_out.tolist()}
