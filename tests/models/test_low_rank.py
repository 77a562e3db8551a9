"""Low-rank products: the sum that they stand for, who is trained, and what is left when added."""

import mlx.core as mx
import mlx.nn as nn
import numpy as np
import pytest
from adapters import adapted
from hypothesis import given
from hypothesis import strategies as st
from mlx.utils import tree_flatten
from random_models import esm1b, parameters, same

from mlx_esm_kernels.models.fingerprint import fingerprint, fingerprint_of_base
from mlx_esm_kernels.models.layers import project, project_together
from mlx_esm_kernels.models.low_rank import (
    KEYS,
    KEYS_OF_MODEL,
    LowRank,
    LowRankLinear,
    adapter_arrays,
    add_low_rank,
    base_parameters,
    draw_dropout,
    fuse_low_rank,
)
from mlx_esm_kernels.system.errors import UserError

EVERYWHERE = LowRank(3, scale=2.0, keys=(*KEYS, *KEYS_OF_MODEL))
TOKENS = mx.array([[0, 20, 15, 11, 5, 19, 2], [0, 5, 5, 32, 2, 1, 1]])


def logits(model):
    return np.array(model(TOKENS)["logits"].astype(mx.float32))


@given(
    seed=st.integers(0, 1000),
    rows=st.integers(1, 9),
    inputs=st.integers(1, 40),
    outputs=st.integers(1, 40),
    rank=st.integers(1, 9),
    scale=st.floats(-4, 4).filter(bool),
    has_bias=st.booleans(),
    dtype=st.sampled_from([mx.float32, mx.bfloat16]),
)
def test_a_product_is_the_dense_sum(seed, rows, inputs, outputs, rank, scale, has_bias, dtype):
    rng = np.random.default_rng(seed)

    def drawn(*shape):
        return mx.array(rng.normal(0, 0.5, shape), mx.float32).astype(dtype)

    inner = nn.Linear(inputs, outputs, bias=has_bias)
    inner.weight = drawn(outputs, inputs)
    if has_bias:
        inner.bias = drawn(outputs)
    layer = LowRankLinear(inner, rank, scale)
    layer.lora_a, layer.lora_b = drawn(inputs, rank), drawn(rank, outputs)
    x = drawn(rows, inputs)

    w, a, b, x64 = (
        np.array(array.astype(mx.float32), np.float64)
        for array in (inner.weight, layer.lora_a, layer.lora_b, x)
    )
    wanted = x64 @ (w + scale * (a @ b).T).T
    # What cancels in the sum has been rounded before.
    size = np.abs(x64) @ (np.abs(w).T + abs(scale) * np.abs(a) @ np.abs(b)) + 1
    if has_bias:
        wanted = wanted + np.array(inner.bias.astype(mx.float32))
    y = layer(x)
    assert y.dtype == dtype
    bound = 1e-5 if dtype == mx.float32 else 2**-6
    assert (np.abs(np.array(y.astype(mx.float32)) - wanted) <= bound * (size + 2)).all()


def test_an_adapted_model_begins_as_what_it_was():
    model = esm1b()
    before, known, hashed = logits(model), parameters(model), fingerprint_of_base(model)
    add_low_rank(model, EVERYWHERE)
    # GELU is then computed beside the op.
    np.testing.assert_allclose(logits(model), before, rtol=1e-5, atol=1e-5)
    base = base_parameters(model)
    assert base.keys() == known.keys()
    assert all(mx.array_equal(base[name], known[name]) for name in known)
    assert fingerprint_of_base(model) == hashed != fingerprint(model)


def test_adapters_that_differ_in_scale_alone_are_told_apart():
    one, other = (adapted(esm1b(), LowRank(2, scale=scale)) for scale in (1.0, 2.0))
    assert fingerprint(one) != fingerprint(other)
    assert fingerprint_of_base(one) == fingerprint_of_base(other)


def test_the_gradient_goes_to_the_products_alone():
    model = adapted(esm1b(), LowRank(2, scale=1.0, num_layers=1))

    def loss(model):
        return (model(TOKENS)["logits"].astype(mx.float32) ** 2).mean()

    gradient = dict(tree_flatten(nn.value_and_grad(model, loss)(model)[1]))
    assert gradient.keys() == adapter_arrays(model).keys()
    assert all(mx.abs(array).max().item() > 0 for array in gradient.values())
    assert all(name.startswith("layers.1.") for name in gradient)


@pytest.mark.parametrize(("dtype", "bound"), [(mx.float32, 1e-4), (mx.bfloat16, 0.15)])
def test_a_fused_model_gives_what_it_gave_with_the_product(dtype, bound):
    model = esm1b()
    plain = logits(model)
    model.set_dtype(dtype)
    adapted(model, EVERYWHERE)
    before = logits(model)
    names = base_parameters(model).keys()
    fuse_low_rank(model)
    assert parameters(model).keys() == names
    assert {array.dtype for array in parameters(model).values()} == {dtype}
    assert np.abs(logits(model) - before).max() <= bound * np.abs(before).max()
    assert np.abs(plain - before).max() > 0.5 * np.abs(before).max()  # it did something


@pytest.mark.parametrize("dtype", [mx.float32, mx.bfloat16])
def test_queries_keys_and_values_together_are_those_one_by_one(dtype):
    model = esm1b()
    model.set_dtype(dtype)
    attention = adapted(model, EVERYWHERE).layers[0].self_attn
    x = mx.array(np.random.default_rng(1).normal(0, 1, (5, 16)), mx.float32).astype(dtype)
    layers = (attention.q_proj, attention.k_proj, attention.v_proj)
    for ours, layer in zip(project_together(layers, x), layers, strict=True):
        a, b = (np.array(y.astype(mx.float32)) for y in (ours, layer(x)))
        np.testing.assert_allclose(a, b, rtol=1e-5 if dtype == mx.float32 else 2**-6, atol=1e-5)


def test_dropout_leaves_out_the_same_at_the_same_moment_and_nothing_without_one():
    model = adapted(esm1b(), LowRank(2, scale=2.0, dropout=0.5))
    plain = logits(model)
    seen = []
    for moment in ((7, 1), (7, 2), (7, 1)):
        draw_dropout(model, moment)
        seen.append(logits(model))
    assert np.array_equal(seen[0], seen[2])
    assert not np.array_equal(seen[0], seen[1])
    draw_dropout(model, None)
    assert np.array_equal(logits(model), plain)


@pytest.mark.parametrize(
    ("fields", "sentence"),
    [
        ({"rank": 0}, "rank of an adapter must be 1 or more"),
        ({"rank": True}, "rank of an adapter must be 1 or more"),
        ({"scale": 0.0}, "scale of an adapter must be a finite number"),
        ({"scale": float("nan")}, "scale of an adapter must be a finite number"),
        ({"dropout": 1.0}, "dropout of an adapter must be at least 0 and below 1"),
        ({"num_layers": 0}, "an adapter must have 1 layer or more"),
        ({"keys": ("fc3",)}, "got fc3"),
        ({"keys": ()}, "needs layers to stand beside"),
    ],
)
def test_what_means_nothing_is_refused(fields, sentence):
    with pytest.raises(UserError, match=sentence):
        LowRank(**{"rank": 2, **fields})


def test_a_model_that_is_too_small_stays_as_it_was():
    model = esm1b()
    with pytest.raises(UserError, match="has 2 layers, too few for an adapter of 3"):
        add_low_rank(model, LowRank(2, num_layers=3))
    assert same(model, esm1b())
    assert parameters(model).keys() == dict(tree_flatten(model.trainable_parameters())).keys()


def test_there_is_one_product_beside_a_layer():
    model = adapted(esm1b(), LowRank(2))
    with pytest.raises(ValueError, match="must be a linear layer"):
        add_low_rank(model, LowRank(2))


def test_a_layer_of_another_class_is_called():
    class Doubled(nn.Linear):
        def __call__(self, x):
            return 2 * super().__call__(x)

    layer, x = Doubled(8, 4), mx.random.normal((3, 8))
    adapted = LowRankLinear(layer, 2)
    for activation, residual in ((None, None), ("gelu", None), (None, mx.ones((3, 4)))):
        got = project(adapted, x, activation=activation, residual=residual)
        expected = project(layer, x, activation=activation, residual=residual)
        np.testing.assert_allclose(np.array(got), np.array(expected), rtol=1e-5, atol=1e-6)
