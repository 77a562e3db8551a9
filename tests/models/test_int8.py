"""Models with int8 weights: how they are rounded, and that they are still those models."""

from __future__ import annotations

import mlx.core as mx
import numpy as np
import pytest
from random_models import esm1, esm1b, esm2, parameters, same

from mlx_esm_kernels.models.esm1 import describe
from mlx_esm_kernels.models.int8 import (
    Int8Linear,
    int8_layers,
    quantize_int8,
    require_unquantised,
    stays_as_stored,
)
from mlx_esm_kernels.models.layers import Linear, project, project_together
from mlx_esm_kernels.models.low_rank import LowRank, add_low_rank
from mlx_esm_kernels.system.errors import UserError

TOKENS = mx.array([[0, 5, 6, 7, 8, 9, 10, 11, 2], [0, 12, 13, 14, 2, 1, 1, 1, 1]])


def test_a_weight_is_rounded_to_the_nearest_step_of_its_row() -> None:
    layer = Linear(40, 30)
    layer.weight = mx.random.normal((30, 40), key=mx.random.key(3)) * mx.arange(30)[:, None]
    made = Int8Linear.of(layer)
    weight, scale = np.array(layer.weight), np.array(made.weight_scale)
    assert made.weight.dtype == mx.int8
    assert np.abs(np.array(made.weight)).max(axis=1).tolist() == [0] + [127] * 29
    restored = np.array(made.weight) * scale[:, None]
    assert (np.abs(restored - weight) <= 0.5001 * scale[:, None]).all()
    np.testing.assert_array_equal(np.array(made.bias), np.array(layer.bias))


@pytest.mark.parametrize("make", [esm1, esm1b, esm2])
def test_a_quantised_model_gives_nearly_the_same_logits(make) -> None:
    model = make()
    tokens = mx.minimum(TOKENS, model.config.vocab_size - 1)
    before = model(tokens)["logits"]
    quantize_int8(model)
    after = model(tokens)["logits"]
    assert len(int8_layers(model)) == 12
    error = float(mx.abs(after - before).max() / mx.abs(before).max())
    assert 0 < error < 0.05  # not the same: it would not have been quantised


def test_all_else_is_as_it_was_and_it_is_said() -> None:
    model, other = esm1b(), esm1b()
    quantize_int8(model)
    ours, theirs = parameters(model), parameters(other)
    rounded = {name for name in ours if ours[name].dtype == mx.int8}
    assert len(rounded) == 12
    for name in ours.keys() - rounded:
        if not name.endswith(".weight_scale"):
            assert mx.array_equal(ours[name], theirs[name]), name
    for name, array in ours.items():
        assert stays_as_stored(name, mx.float32) == array.dtype
    assert describe(model).endswith("2 heads, int8)")
    assert describe(other).endswith("2 heads)")


def test_it_gives_the_same_numbers_whenever_it_is_done() -> None:
    one, other = esm2(), esm2()
    quantize_int8(one)
    quantize_int8(other)
    assert same(one, other)


def test_fused_calls_are_the_plain_ones() -> None:
    layers = [Int8Linear.of(Linear(24, width)) for width in (24, 10, 7)]
    x = mx.random.normal((5, 24), key=mx.random.key(1))
    for layer, y in zip(layers, project_together(layers, x), strict=True):
        assert mx.array_equal(y, layer(x))
    residual = mx.random.normal((5, 24), key=mx.random.key(2))
    assert mx.array_equal(project(layers[0], x, residual=residual), layers[0](x, residual=residual))
    np.testing.assert_allclose(
        np.array(project(layers[0], x, residual=residual)),
        np.array(layers[0](x) + residual),
        rtol=1e-6,
    )


def test_weights_that_are_not_finite_are_named_and_nothing_is_changed() -> None:
    model = esm1b()
    model.layers[1].fc2.weight[3, 4] = float("nan")
    with pytest.raises(UserError, match=r"^layers\.1\.fc2\.weight has numbers that are NaN"):
        quantize_int8(model)
    assert not int8_layers(model)


def test_what_is_quantised_or_adapted_is_not_quantised() -> None:
    model, adapted = esm1b(), esm1b()
    quantize_int8(model)
    with pytest.raises(UserError, match="quantised to int8 already"):
        quantize_int8(model)
    with pytest.raises(UserError, match=r"^W is quantised to int8.*cannot be trained: give the un"):
        require_unquantised(model, "W", "trained")
    add_low_rank(adapted, LowRank(rank=2))
    with pytest.raises(UserError, match="fuse it first"):
        quantize_int8(adapted)


def test_a_gradient_through_it_is_refused() -> None:
    model = esm1b()
    quantize_int8(model)

    def loss(table: mx.array) -> mx.array:
        model.embed_tokens.weight = table
        return model(TOKENS)["logits"].sum()

    with pytest.raises(ValueError, match=r"^\[int8_linear\] has no gradient"):
        mx.eval(mx.grad(loss)(model.embed_tokens.weight))
