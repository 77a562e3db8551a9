"""Rotary positions, and the architecture of ESM-2 that they make."""

import dataclasses

import mlx.core as mx
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from mlx.nn.utils import value_and_grad
from mlx.utils import tree_flatten
from random_models import esm2, parameters

from mlx_esm_kernels.models import reference
from mlx_esm_kernels.models.config import PRESETS, ESM1Config
from mlx_esm_kernels.models.esm1 import ESM1
from mlx_esm_kernels.models.reference import ESM1Reference
from mlx_esm_kernels.ops import rotary, rotary_angles
from mlx_esm_kernels.weights import load_model, save_weights

SEGMENTS = mx.array([[1, 1, 1, 2, 2, 2, 2, 0], [3, 3, 3, 3, 3, 1, 1, 1]])
TOKENS = mx.array([[0, 20, 2, 0, 5, 32, 2, 1], [0, 15, 11, 24, 2, 0, 9, 2]])


def truth(x, position):
    """x (..., D) at one position, in float64, number by number."""
    half = x.shape[-1] // 2
    y = np.array(x, np.float64)
    for i in range(half):
        angle = position * 10_000.0 ** (-2 * i / x.shape[-1])
        a, b = x[..., i], x[..., i + half]
        y[..., i] = a * np.cos(angle) - b * np.sin(angle)
        y[..., i + half] = b * np.cos(angle) + a * np.sin(angle)
    return y


@given(seed=st.integers(0, 2**32), half=st.integers(1, 20), lengths=st.lists(st.integers(1, 9)))
def test_each_token_is_turned_by_its_position_in_its_segment(seed, half, lengths):
    lengths = lengths or [3]
    ids = np.repeat(np.arange(1, len(lengths) + 1), lengths)[None]
    x = np.random.default_rng(seed).normal(size=(1, 2, ids.size, 2 * half)).astype(np.float32)
    got = np.array(rotary(mx.array(x), rotary_angles(mx.array(ids), 2 * half)))
    positions = np.concatenate([np.arange(length) for length in lengths])
    for column, position in enumerate(positions):
        expected = truth(x[:, :, column], position)
        np.testing.assert_allclose(got[:, :, column], expected, atol=1e-5)


@pytest.mark.parametrize("length", [1, 40_000])
def test_angles_of_far_positions_are_those_of_float64(length):
    """Of titin's, too: within what float32 gives an angle of that size."""
    cos, sin = np.split(np.array(rotary_angles(mx.ones((1, length), mx.int32), 16))[0], 2, axis=1)
    position = np.arange(length)[:, None]
    angles = position * 10_000.0 ** (-2 * np.arange(8) / 16)
    bound = 1e-6 + 2e-7 * angles
    assert (np.abs(cos - np.cos(angles)) <= bound).all()
    assert (np.abs(sin - np.sin(angles)) <= bound).all()


def test_the_reference_turns_alike_and_so_do_gradients():
    q = mx.random.normal((2, 2, 8, 6), key=mx.random.key(0))
    out = mx.random.normal(q.shape, key=mx.random.key(1))
    ours = lambda q: (rotary(q, rotary_angles(SEGMENTS, 6)) * out).sum()  # noqa: E731
    theirs = lambda q: (reference.rotary(q, reference.rotary_angles(SEGMENTS, 6)) * out).sum()  # noqa: E731
    real = (SEGMENTS != 0)[:, None, :, None]
    expected, got = (mx.grad(f)(q) * real for f in (theirs, ours))
    np.testing.assert_allclose(np.array(got), np.array(expected), atol=1e-5)


@pytest.mark.parametrize("frequency_dtype", ["float32", "float16", "bfloat16"])
def test_the_model_is_its_reference_packed_and_alone(frequency_dtype):
    model = esm2(embed_dim=32, frequency_dtype=frequency_dtype)
    plain = ESM1Reference(dataclasses.replace(model.config, contact_head=False))
    plain.load_weights(
        [(name, x) for name, x in parameters(model).items() if not name.startswith("contact")]
    )
    real = np.array(SEGMENTS != 0)
    expected = np.array(plain(TOKENS, SEGMENTS)["logits"])[real]
    got = np.array(model(TOKENS, SEGMENTS)["logits"])
    np.testing.assert_allclose(got[real], expected, atol=2e-5)
    alone = np.array(model(TOKENS[:1, 3:7])["logits"])
    np.testing.assert_allclose(got[0, 3:7], alone[0], atol=2e-5)


def test_positions_are_told_apart():
    """With no positions at all, swapping two residues would swap their rows."""
    model = esm2()
    one = np.array(model(mx.array([[0, 20, 5, 2]]))["logits"])[0]
    other = np.array(model(mx.array([[0, 5, 20, 2]]))["logits"])[0]
    assert np.abs(one[1] - other[2]).max() > 1e-3


def test_gradients_are_those_of_the_reference():
    model = esm2(contact_head=False)
    plain = ESM1Reference(model.config)
    plain.load_weights(list(parameters(model).items()))

    def loss(model):
        return (model.encode(TOKENS, SEGMENTS) * (SEGMENTS != 0)[..., None]).square().sum()

    expected = value_and_grad(plain, lambda: loss(plain))()[1]
    got = value_and_grad(model, lambda: loss(model))()[1]
    expected, got = dict(tree_flatten(expected)), dict(tree_flatten(got))
    assert expected.keys() == got.keys()
    for name in expected:
        scale = max(1.0, float(mx.abs(expected[name]).max()))
        np.testing.assert_allclose(
            np.array(got[name]) / scale, np.array(expected[name]) / scale, atol=2e-5, err_msg=name
        )


def test_layers_computed_again_are_the_same():
    model = esm2()
    plain = np.array(model.encode(TOKENS, SEGMENTS))
    model.checkpointing = True
    np.testing.assert_array_equal(np.array(model.encode(TOKENS, SEGMENTS)), plain)


def test_weights_are_saved_and_read(tmp_path):
    model = esm2()
    save_weights(tmp_path / "w.safetensors", model)
    again = load_model(tmp_path / "w.safetensors")
    assert again.config == model.config
    np.testing.assert_array_equal(
        np.array(again(TOKENS, SEGMENTS)["logits"]), np.array(model(TOKENS, SEGMENTS)["logits"])
    )


@pytest.mark.parametrize(
    "wrong", [{"embed_dim": 6, "num_heads": 2}, {"sinusoidal_positions": True}], ids=str
)
def test_what_cannot_turn_is_refused(wrong):
    fields = {"num_layers": 1, "embed_dim": 8, "num_heads": 2, **wrong}
    with pytest.raises(ValueError, match="rotary_positions needs"):
        ESM1Config.esm2(**fields)


def test_frequencies_are_rounded_for_rotary_positions_alone():
    with pytest.raises(ValueError, match="frequency_dtype must be float32, or with rotary_pos"):
        ESM1Config(1, 8, 32, 2, frequency_dtype="float16")
    ids = mx.ones((1, 500), mx.int32)
    difference = rotary_angles(ids, 16) - rotary_angles(ids, 16, rounded_to=mx.float16)
    assert float(mx.abs(difference).max()) > 0.01


def test_presets_are_of_the_released_sizes():
    """8 M is 7.5 million parameters in fair-esm, its contact regression left out."""
    assert sum(x.size for x in parameters(ESM1(PRESETS["esm2_t6_8M"])).values()) == 7_512_353
    sizes = [PRESETS[name] for name in PRESETS if name.startswith("esm2")]
    assert [config.head_dim for config in sizes] == [16, 24, 32, 64, 64, 128]
