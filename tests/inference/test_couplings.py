"""Which positions a model takes to vary together."""

import numpy as np
import pytest
from float64_model import float64_logits
from random_models import esm1, esm1b, esm2

from mlx_esm_kernels import coupling_map
from mlx_esm_kernels.data.alphabet import ESM1B
from mlx_esm_kernels.inference.couplings import corrected, couplings


def test_couplings_are_the_norms_of_the_categorical_jacobian():
    model, ids = esm1b(), ESM1B.encode("MKTAYIAK").copy()
    blocks = np.empty((8, 20, 8, 20))
    for place in range(8):
        for number, residue in enumerate(ESM1B.amino_acid_ids):
            changed = ids.copy()
            changed[place] = residue
            logits = float64_logits(model, ESM1B.with_specials(changed))
            blocks[place, number] = logits[1:-1, ESM1B.amino_acid_ids]
    blocks -= blocks.mean(axis=1, keepdims=True)
    blocks -= blocks.mean(axis=3, keepdims=True)
    norms = np.sqrt((blocks**2).sum(axis=(1, 3)))
    np.fill_diagonal(norms, 0)
    np.testing.assert_allclose(couplings(model, ids), norms + norms.T, rtol=1e-4, atol=1e-5)


def test_what_a_position_has_with_all_is_taken_away():
    popular = np.array([1.0, 2.0, 5.0, 2.0])
    np.testing.assert_allclose(corrected(np.outer(popular, popular)), 0, atol=1e-12)
    assert (corrected(np.zeros((3, 3))) == 0).all()


@pytest.mark.parametrize("make", [esm1, esm1b, esm2])
def test_a_map_has_the_strongest_as_1_and_nothing_below_0(make):
    model = make()
    expected = corrected(couplings(model, model.alphabet.encode("MKTAYIAK"))).clip(min=0)
    np.fill_diagonal(expected, 0)
    found = coupling_map(model, "mktayiak")  # letters of either case, as elsewhere
    np.testing.assert_allclose(found, expected / expected.max(), rtol=1e-6)
    assert (found.max(), found.min()) == (1, 0)


def test_a_single_residue_goes_with_none():
    assert coupling_map(esm1b(), "M").tolist() == [[0]]


@pytest.mark.parametrize(
    ("wrong", "why"),
    [("", "no residues|empty"), ("MK1", "1"), ("M" * 5000, "the sequence has 5,000 residues")],
)
def test_what_is_no_protein_for_the_model_is_refused(wrong, why):
    with pytest.raises(ValueError, match=why):
        coupling_map(esm1b(), wrong)
