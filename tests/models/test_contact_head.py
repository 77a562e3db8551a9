"""Contacts are those of the definition, for any batch, in memory that does not grow with heads."""

import mlx.core as mx
import numpy as np
import pytest
from random_models import randomised
from test_model import SMALL, packed, protein

from mlx_esm_kernels.models import contact_head, contact_rows
from mlx_esm_kernels.models import esm1 as esm1_module
from mlx_esm_kernels.models.esm1 import ESM1, ESM1Config, predict_contact_rows, predict_contacts
from mlx_esm_kernels.models.reference import ESM1Reference

CONFIGS = {
    "ESM-1b": ESM1Config(**SMALL, contact_head=True),
    "ESM-1": ESM1Config.esm1(**SMALL, contact_head=True),
    "ESM-2": ESM1Config.esm2(**SMALL, contact_head=True),
}
both = pytest.mark.parametrize("config", CONFIGS.values(), ids=CONFIGS)


def batch(config, lengths):
    alphabet, rng = config.known_alphabet(), np.random.default_rng(0)
    rows = [[protein(rng, n, alphabet=alphabet)] for n in lengths]
    return packed(rows, max(lengths) + alphabet.num_specials, alphabet)[0]


@both
@pytest.mark.parametrize("maps_at_once", [1, 5000, 1 << 22])
def test_contacts_are_those_of_the_reference_however_many_maps_are_made_at_once(
    config, maps_at_once, monkeypatch
):
    monkeypatch.setattr(contact_head, "_MAPS_AT_ONCE", maps_at_once)
    model, reference = randomised(ESM1(config)), randomised(ESM1Reference(config))
    tokens = batch(config, (30, 9, 17, 1))
    actual = model(tokens, return_contacts=True)["contacts"]
    assert actual.shape == (4, 30, 30)
    expected = reference(tokens, return_contacts=True)["contacts"]
    np.testing.assert_allclose(np.array(actual), np.array(expected), atol=2e-6)


@both
@pytest.mark.parametrize("numbers_at_once", [1, 200])
@pytest.mark.parametrize("dtype", [mx.float32, mx.float16])
def test_rows_that_are_made_on_their_own_are_those_of_the_whole_map(
    config, numbers_at_once, dtype, monkeypatch
):
    model = randomised(ESM1(config))
    model.set_dtype(dtype)
    for length, padding in ((30, 0), (1, 0), (17, 3)):
        tokens = mx.pad(
            batch(config, (length,))[0], (0, padding), constant_values=config.padding_idx
        )
        whole = model(tokens[None], return_contacts=True)["contacts"][0]
        with monkeypatch.context() as patch:
            patch.setattr(esm1_module, "_WHOLE_MAP", 0)
            patch.setattr(contact_rows, "_NUMBERS_AT_ONCE", numbers_at_once)
            rows = list(predict_contact_rows(model, tokens))
            assert mx.array_equal(predict_contacts(model, tokens), mx.concatenate(rows))
        assert len(rows) > length // 7
        np.testing.assert_allclose(np.array(mx.concatenate(rows)), np.array(whole), atol=1e-6)


@both
def test_a_protein_has_the_same_contacts_alone_and_in_a_batch_and_they_are_symmetric(config):
    model = randomised(ESM1(config))
    lengths = (25, 8, 13)
    tokens = batch(config, lengths)
    together = model(tokens, return_contacts=True)["contacts"]
    for row, length in enumerate(lengths):
        alone = predict_contacts(
            model, tokens[row, : length + config.known_alphabet().num_specials]
        )
        assert alone.shape == (length, length)
        np.testing.assert_allclose(np.array(alone), np.array(alone).T, atol=1e-6)
        np.testing.assert_allclose(
            np.array(alone), np.array(together[row, :length, :length]), atol=2e-6
        )


@both
def test_rows_without_residues_give_the_bias_alone_and_not_nan(config):
    model, alphabet = randomised(ESM1(config)), config.known_alphabet()
    tokens = np.full((3, 8), alphabet.padding_idx)
    tokens[0] = alphabet.with_specials(alphabet.encode("MKTLLIAW"))[:8]
    tokens[1, : alphabet.num_specials] = alphabet.with_specials(alphabet.encode(""))
    contacts = np.array(model(mx.array(tokens), return_contacts=True)["contacts"])
    bias = mx.sigmoid(model.contact_head.regression.bias).item()
    np.testing.assert_allclose(contacts[1:], bias, atol=1e-6)
    assert predict_contacts(model, mx.array(tokens[1, : alphabet.num_specials])).shape == (0, 0)


def test_contacts_are_float32_and_near_in_half_precision():
    model = randomised(ESM1(CONFIGS["ESM-1"]), scale=0.1)
    tokens = batch(CONFIGS["ESM-1"], (30, 9))
    expected = model(tokens, return_contacts=True)["contacts"]
    model.set_dtype(mx.float16)
    actual = model(tokens, return_contacts=True)["contacts"]
    assert actual.dtype == mx.float32
    np.testing.assert_allclose(np.array(actual), np.array(expected), atol=1e-3)


def test_the_memory_is_that_of_a_few_maps_for_any_number_of_heads():
    length, heads, layers = 256, 16, 24
    tokens = mx.array(np.random.default_rng(0).integers(4, 24, length))
    model = ESM1(ESM1Config(layers, 64, 64, heads, contact_head=True))
    mx.eval(model.parameters())
    mx.reset_peak_memory()
    before = mx.get_active_memory()
    mx.eval(predict_contacts(model, tokens))
    all_maps = layers * heads * length**2 * 4  # bytes
    assert mx.get_peak_memory() - before < all_maps / 4  # those of a few layers


def test_contacts_that_cannot_be_are_refused_with_a_sentence():
    tokens = batch(CONFIGS["ESM-1b"], (9,))
    without = ESM1(ESM1Config(**SMALL))
    with pytest.raises(ValueError, match="no contact regression, so it cannot predict contacts"):
        without(tokens, return_contacts=True)
    with pytest.raises(ValueError, match="one protein in each row: leave out segment_ids"):
        ESM1(CONFIGS["ESM-1b"])(tokens, mx.ones_like(tokens), return_contacts=True)
    with pytest.raises(ValueError, match=r"tokens must be \(L,\); got shape \(1, 11\)"):
        predict_contacts(without, tokens)
    with pytest.raises(ValueError, match="no contact regression, so it cannot predict contacts"):
        predict_contacts(without, mx.zeros(5000, mx.int32))
