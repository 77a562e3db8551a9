"""What a page of a run shows of its weights, against what other commands say of the same."""

import mlx.core as mx
import numpy as np
import pytest
from random_models import esm1, esm1b, esm2

from mlx_esm_kernels.data.proteins import Proteins
from mlx_esm_kernels.inference.likelihood import pseudo_perplexity
from mlx_esm_kernels.inference.run_report import (
    MOST_MAPS,
    SAMPLES,
    confidence,
    held_out_targets,
    made_by,
    no_contacts,
)
from mlx_esm_kernels.models.esm1 import predict_contacts


@pytest.mark.parametrize("make", [esm1, esm1b, esm2])
def test_confidence_is_what_pseudo_perplexity_is_the_mean_of(make):
    model = make()
    made = made_by(model)
    assert len(made) == SAMPLES
    tokens = np.stack(
        [model.alphabet.with_specials(model.alphabet.encode(one.sequence)) for one in made]
    )
    expected = pseudo_perplexity(model, tokens)
    assert [one.pseudo_perplexity for one in made] == pytest.approx(expected, rel=1e-5)
    assert all(one.confidence.shape == (len(one.sequence),) for one in made)
    assert np.allclose(confidence(model, tokens[0]), made[0].confidence)


def test_the_first_samples_have_the_contacts_that_the_model_predicts():
    model = esm1b()
    made = made_by(model)
    assert [one.contacts is not None for one in made] == [n < MOST_MAPS for n in range(SAMPLES)]
    ids = model.alphabet.with_specials(model.alphabet.encode(made[1].sequence))
    expected = np.array(predict_contacts(model, mx.array(ids)))
    assert np.allclose(made[1].contacts, expected, atol=1e-5)


def test_a_model_without_a_regression_says_so_and_makes_proteins_all_the_same():
    model = esm1b(contact_head=False)
    assert all(one.contacts is None for one in made_by(model))
    assert "no contact regression" in no_contacts(model)
    assert no_contacts(esm1b()) is None


def test_of_many_held_out_proteins_about_ten_thousand_residues_are_asked_for():
    model = esm1b()
    drawn = np.random.default_rng(0).choice(list("ACDEFGHIKLMNPQRSTVWY"), (4000, 30))
    proteins = Proteins.from_sequences(["".join(row) for row in drawn], model.alphabet)
    held_out = np.arange(500, 4000)
    targets = held_out_targets(proteins, held_out, model)
    assert 10_000 <= len(targets) < 13_000
    assert set(targets.indices.tolist()) <= set(held_out.tolist())
    again = held_out_targets(proteins, held_out, model)
    assert np.array_equal(targets.positions, again.positions)
