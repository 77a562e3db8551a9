"""The float64 truth against loops that follow the definitions, and against differentiation.

Gradients are checked by the complex step, f'(x) = Im f(x + ih) / h, which has no cancellation;
GELU has no complex erf here and is differenced in float64.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import truth
from arrays import SEGMENT_PATTERNS, poison, segment_ids
from truth import Array, Gradients

Forward = Callable[[dict[str, Array]], Array]


def by_complex_step(forward: Forward, inputs: dict[str, Array], cotangent: Array) -> Gradients:
    """Gradient of sum(cotangent * forward(inputs)) for every element of every input."""
    gradients = {}
    for name, x in inputs.items():
        gradient = np.zeros(x.shape)
        for index in np.ndindex(x.shape):
            moved = x.astype(complex)
            moved[index] += 1e-30j
            gradient[index] = (cotangent * forward(inputs | {name: moved})).sum().imag / 1e-30
        gradients[f"d{name}"] = gradient
    return gradients


def by_differences(forward: Forward, inputs: dict[str, Array], cotangent: Array) -> Gradients:
    """The same by central differences of fourth order."""

    def value(name: str, index: tuple[int, ...], step: float) -> float:
        moved = inputs[name].copy()
        moved[index] += step
        return float((cotangent * forward(inputs | {name: moved})).sum())

    gradients = {}
    for name, x in inputs.items():
        gradient, h = np.zeros(x.shape), 1e-3
        for index in np.ndindex(x.shape):
            near = value(name, index, h) - value(name, index, -h)
            far = value(name, index, 2 * h) - value(name, index, -2 * h)
            gradient[index] = (8 * near - far) / (12 * h)
        gradients[f"d{name}"] = gradient
    return gradients


def assert_same(actual: Gradients, expected: Gradients, tolerance: float) -> None:
    assert set(actual) == set(expected)
    for name in actual:
        size = np.abs(expected[name]).max(initial=1e-3)
        np.testing.assert_allclose(
            actual[name], expected[name], rtol=0, atol=tolerance * size, err_msg=name
        )


def attention_inputs(rng: np.random.Generator, *, biases: bool) -> dict[str, Array]:
    inputs = {name: rng.standard_normal((2, 2, 6, 3)) for name in ("q", "k", "v")}
    if biases:
        inputs |= {name: rng.standard_normal((2, 3)) for name in ("bias_k", "bias_v")}
    return inputs


@pytest.mark.parametrize("biases", [False, True])
@pytest.mark.parametrize("pattern", SEGMENT_PATTERNS)
def test_masked_attention_is_a_softmax_over_the_own_segment(pattern: str, biases: bool) -> None:
    rng = np.random.default_rng(1)
    x = attention_inputs(rng, biases=biases)
    ids = segment_ids(pattern, (2, 6), "int64", rng)
    expected = np.zeros((2, 2, 6, 3))
    for b, h, i in np.ndindex(2, 2, 6):
        own = 1 if ids is None else ids[b, i]
        if own == 0:
            continue
        keys = [x["k"][b, h, j] for j in range(6) if ids is None or ids[b, j] == own]
        values = [x["v"][b, h, j] for j in range(6) if ids is None or ids[b, j] == own]
        if biases:
            keys, values = [*keys, x["bias_k"][h]], [*values, x["bias_v"][h]]
        weights = [math.exp(0.7 * float(np.dot(x["q"][b, h, i], key))) for key in keys]
        mixed = sum(w * value for w, value in zip(weights, values, strict=True))
        expected[b, h, i] = mixed / sum(weights)
    o = truth.masked_attention(**x, scale=0.7, segment_ids=ids)
    np.testing.assert_allclose(o, expected, rtol=1e-13, atol=1e-14)


@pytest.mark.parametrize("scale", [None, 0.3, -2.0])
@pytest.mark.parametrize("biases", [False, True])
@pytest.mark.parametrize("pattern", SEGMENT_PATTERNS)
def test_masked_attention_gradients(pattern: str, biases: bool, scale: float | None) -> None:
    rng = np.random.default_rng(2)
    x = attention_inputs(rng, biases=biases)
    ids = segment_ids(pattern, (2, 6), "int64", rng)
    do = rng.standard_normal((2, 2, 6, 3))

    def forward(inputs: dict[str, Array]) -> Array:
        return truth.masked_attention(**inputs, scale=scale, segment_ids=ids)

    gradients = truth.masked_attention_gradients(do, **x, scale=scale, segment_ids=ids)
    assert_same(gradients, by_complex_step(forward, x, do), 1e-13)


def test_padding_that_holds_nan_changes_nothing() -> None:
    rng = np.random.default_rng(3)
    x: dict[str, Any] = attention_inputs(rng, biases=True)
    do = rng.standard_normal((2, 2, 6, 3))
    ids = np.array([[1, 0, 2, 1, 0, 2], [0, 0, 0, 5, 5, 5]])
    rows = (ids == 0)[:, None, :, None]
    bad = x | {name: poison(x[name], rows) for name in ("q", "k", "v")}
    clean = truth.masked_attention_gradients(do, **x, segment_ids=ids)
    gradients = truth.masked_attention_gradients(poison(do, rows), **bad, segment_ids=ids)
    for name, gradient in gradients.items():
        np.testing.assert_array_equal(gradient, clean[name])
    o = truth.masked_attention(**bad, segment_ids=ids)
    np.testing.assert_array_equal(o, truth.masked_attention(**x, segment_ids=ids))
    assert (o[np.broadcast_to(rows, o.shape)] == 0).all()


def test_token_dropout_and_positions_are_those_of_fair_esm() -> None:
    """The published formula: cumsum(nonpad) * nonpad + 1, and 0.88 / (1 - n_mask / n_nonpad)."""
    rng = np.random.default_rng(4)
    padding_idx, mask_idx = 1, 32
    tokens = rng.integers(4, 24, (3, 12))
    tokens[rng.random(tokens.shape) < 0.2] = mask_idx
    tokens[0, 9:], tokens[2, 4:] = padding_idx, padding_idx
    token_table, position_table = rng.standard_normal((33, 5)), rng.standard_normal((20, 5))
    nonpad = tokens != padding_idx
    x = token_table[tokens]
    x[tokens == mask_idx] = 0
    masked_rate = (tokens == mask_idx).sum(axis=1) / nonpad.sum(axis=1)
    x = x * (0.88 / (1 - masked_rate))[:, None, None]
    x = (x + position_table[np.cumsum(nonpad, axis=1) * nonpad + padding_idx]) * nonpad[..., None]
    actual = truth.positional_embedding(
        tokens, token_table, position_table, padding_idx=padding_idx, mask_idx=mask_idx
    )
    np.testing.assert_allclose(actual, x, rtol=1e-13)


@pytest.mark.parametrize("mask_idx", [None, 3])
@pytest.mark.parametrize("pattern", SEGMENT_PATTERNS)
def test_a_segment_is_embedded_as_if_it_were_alone(pattern: str, mask_idx: int | None) -> None:
    rng = np.random.default_rng(5)
    tokens = rng.integers(0, 6, (2, 9))
    ids = segment_ids(pattern, (2, 9), "int64", rng)
    tables = rng.standard_normal((6, 4)), rng.standard_normal((12, 4))
    options: dict[str, Any] = {"padding_idx": 1, "mask_idx": mask_idx}
    x = truth.positional_embedding(tokens, *tables, segment_ids=ids, **options)
    if ids is None:
        ids = np.ones((2, 9), int)
    for b in range(2):
        for segment in set(ids[b].tolist()):
            own = ids[b] == segment
            alone = truth.positional_embedding(tokens[b, own][None], *tables, **options)
            np.testing.assert_array_equal(x[b, own], alone[0] * (segment != 0))


def test_a_segment_of_masks_alone_has_positions_alone() -> None:
    tables = np.ones((4, 2)), np.arange(12.0).reshape(6, 2)
    tokens, ids = np.array([[3, 3, 2, 3]]), np.array([[1, 1, 2, 2]])
    x = truth.positional_embedding(tokens, *tables, padding_idx=1, mask_idx=3, segment_ids=ids)
    np.testing.assert_allclose(x[0, :2], tables[1][2:4])
    np.testing.assert_allclose(x[0, 2:], tables[1][2:4] + np.array([[1.76], [0]]))


@pytest.mark.parametrize("mask_idx", [None, 4])
@pytest.mark.parametrize("pattern", SEGMENT_PATTERNS)
def test_positional_embedding_gradients(pattern: str, mask_idx: int | None) -> None:
    rng = np.random.default_rng(6)
    tokens = rng.integers(0, 5, (2, 7))
    ids = segment_ids(pattern, (2, 7), "int64", rng)
    x = {
        "token_table": rng.standard_normal((5, 3)),
        "position_table": rng.standard_normal((10, 3)),
    }
    dx = rng.standard_normal((2, 7, 3))
    padding_idx = 1

    def forward(inputs: dict[str, Array]) -> Array:
        return truth.positional_embedding(
            tokens, **inputs, padding_idx=padding_idx, mask_idx=mask_idx, segment_ids=ids
        )

    gradients = truth.positional_embedding_gradients(
        dx, tokens, **x, padding_idx=padding_idx, mask_idx=mask_idx, segment_ids=ids
    )
    assert_same(gradients, by_complex_step(forward, x, dx), 1e-13)


def linear_inputs(rng: np.random.Generator, *, bias: bool) -> dict[str, Array]:
    inputs = {"x": rng.standard_normal((2, 3, 4)), "weight": rng.standard_normal((5, 4))}
    return inputs | ({"bias": rng.standard_normal(5)} if bias else {})


@pytest.mark.parametrize("bias", [False, True])
@pytest.mark.parametrize("activation", [None, "gelu"])
def test_linear_and_its_gradients(activation: str | None, bias: bool) -> None:
    rng = np.random.default_rng(7)
    x = linear_inputs(rng, bias=bias)
    dy = rng.standard_normal((2, 3, 5))
    y = truth.linear(**x, activation=activation)
    for i, j, o in np.ndindex(2, 3, 5):
        z = float(np.dot(x["x"][i, j], x["weight"][o])) + (float(x["bias"][o]) if bias else 0)
        expected = z if activation is None else z * math.erfc(-z / math.sqrt(2)) / 2
        assert y[i, j, o] == pytest.approx(expected, rel=1e-12)

    def forward(inputs: dict[str, Array]) -> Array:
        return truth.linear(**inputs, activation=activation)

    gradients = truth.linear_gradients(dy, **x, activation=activation)
    assert_same(gradients, by_differences(forward, x, dy), 1e-9)


def test_the_tail_of_the_normal_distribution_keeps_its_digits() -> None:
    """Abramowitz and Stegun, table 26.1 and 26.2: Q(5) and -log10 Q(x) beyond."""
    np.testing.assert_allclose(truth.normal_cdf(np.array([-5.0])), 2.8665157e-7, rtol=1e-8)
    digits = -np.log10(truth.normal_cdf(np.array([-6.0, -10.0, -20.0, -30.0])))
    np.testing.assert_allclose(digits, [9.00586, 23.11805, 88.56010, 197.30921], atol=6e-6)


@pytest.mark.parametrize("bias", [False, True])
@pytest.mark.parametrize("activation", [None, "gelu"])
def test_int8_linear_is_a_sum_of_whole_numbers(activation: str | None, bias: bool) -> None:
    rng = np.random.default_rng(8)
    x, weight = rng.standard_normal((2, 3, 7)), rng.integers(-128, 128, (5, 7)).astype(np.int8)
    scale, b = rng.uniform(0.01, 0.02, 5), rng.standard_normal(5)
    r = rng.standard_normal((2, 3, 5))
    given = {"bias": b if bias else None, "residual": r if bias else None}
    y = truth.int8_linear(x, weight, scale, activation=activation, **given)
    for i, j, o in np.ndindex(2, 3, 5):
        unit = max(abs(value) for value in x[i, j]) / 127
        whole = [round(value / unit) for value in x[i, j]]
        assert max(map(abs, whole)) == 127
        h = sum(q * int(w) for q, w in zip(whole, weight[o], strict=True)) * unit * scale[o]
        h += b[o] if bias else 0
        expected = h if activation is None else h * math.erfc(-h / math.sqrt(2)) / 2
        expected += r[i, j, o] if bias else 0
        assert y[i, j, o] == pytest.approx(expected, rel=1e-6, abs=1e-6)


def test_a_row_of_nothing_is_the_bias_and_one_without_a_scale_is_nan() -> None:
    x = np.ones((5, 3))
    x[:, 1:] = 0
    x[:4, 0] = 0, 2.0**-101, np.nan, -np.inf
    y = truth.int8_linear(x, np.ones((2, 3), np.int8), np.ones(2), np.array([3.0, 4.0]))
    np.testing.assert_array_equal(y[:2], [[3, 4]] * 2)
    assert np.isnan(y[2:4]).all()
    np.testing.assert_allclose(y[4], [4, 5], rtol=1e-6)


def test_rotary_and_its_gradients() -> None:
    """Number by number; a turn and its gradient have no parts in common but the terms."""
    rng = np.random.default_rng(0)
    inputs = {"x": rng.standard_normal((2, 3, 4, 6)), "angles": rng.standard_normal((2, 4, 6))}
    dy = rng.standard_normal(inputs["x"].shape)
    y = truth.rotary(**inputs)
    for b, h, row, i in np.ndindex(2, 3, 4, 3):
        first, second = inputs["x"][b, h, row, i], inputs["x"][b, h, row, i + 3]
        turn = inputs["angles"][b, row, i] + 1j * inputs["angles"][b, row, i + 3]
        turned = (first + 1j * second) * turn
        found = [y[b, h, row, i], y[b, h, row, i + 3]]
        np.testing.assert_allclose(found, [turned.real, turned.imag])
    gradients = truth.rotary_gradients(dy, **inputs)
    expected = by_complex_step(lambda given: truth.rotary(**given), inputs, dy)
    assert_same(gradients, expected, 1e-12)
