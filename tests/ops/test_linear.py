"""linear, forward and gradients, against the reference and float64 numpy."""

from __future__ import annotations

import itertools
from typing import Any

import mlx.core as mx
import numpy as np
import pytest
from arrays import DTYPES, LAYOUTS
from closeness import as_numpy
from hypothesis import given
from problems import LinearProblem, check, check_results, results
from strategies import WIDTHS, linear_problems

from mlx_esm_kernels import ops

ACTIVATIONS = (None, "gelu")


@given(problem=linear_problems())
def test_it_is_a_product_a_bias_and_gelu_whatever_the_input(problem: LinearProblem) -> None:
    check(problem)


@pytest.mark.parametrize("activation", ACTIVATIONS)
@pytest.mark.parametrize("dtype", DTYPES)
def test_every_width_in_and_out(dtype: str, activation: str | None) -> None:
    for width_in, width_out in itertools.product(WIDTHS, (1, 7, 16, 100)):
        check(LinearProblem((9,), (width_in, width_out), dtype=dtype, activation=activation))


@pytest.mark.parametrize("activation", ACTIVATIONS)
@pytest.mark.parametrize("bias", [False, True])
@pytest.mark.parametrize("rows", [(), (1,), (2, 3), (2, 1, 4), (257,), (3, 2, 2, 2)])
def test_any_number_of_leading_axes(
    rows: tuple[int, ...], bias: bool, activation: str | None
) -> None:
    check(LinearProblem(rows, (20, 30), bias=bias, activation=activation))


@pytest.mark.parametrize("activation", ACTIVATIONS)
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("layout", [*LAYOUTS, "constant"])
@pytest.mark.parametrize("which", range(3), ids=["x", "weight", "dy"])
def test_every_layout(which: int, layout: str, dtype: str, activation: str | None) -> None:
    layouts = ["contiguous"] * 3
    layouts[which] = layout
    check(
        LinearProblem(
            (2, 3, 5), (12, 9), dtype=dtype, activation=activation, layouts=tuple(layouts)
        )
    )


@pytest.mark.parametrize("activation", ACTIVATIONS)
@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_a_float32_weight_of_any_layout_has_a_float32_gradient(
    dtype: str, layout: str, activation: str | None
) -> None:
    layouts = ("contiguous", layout, "contiguous")
    problem = LinearProblem(
        (150,), (70, 90), dtype=dtype, activation=activation, layouts=layouts, wide_weight=True
    )
    check(problem)
    found = results(problem, ops)
    assert found["dweight"].dtype == mx.float32
    assert {str(found[name].dtype) for name in ("y", "dx")} == {f"mlx.core.{dtype}"}


def test_a_float32_weight_is_at_most_rounded_to_the_dtype_of_x() -> None:
    x, weight, _ = LinearProblem((40,), (64, 70)).differentiable
    y = ops.linear(x.astype(mx.bfloat16), weight).astype(mx.float32)
    exact = as_numpy(x.astype(mx.bfloat16)) @ as_numpy(weight).T
    unit = 2.0**-9 * (np.abs(as_numpy(x)) @ np.abs(as_numpy(weight)).T)
    assert (np.abs(as_numpy(y) - exact) <= 1.1 * unit).all()


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("size", [1e-3, 1.0, 10.0, 1000.0])
def test_gelu_and_its_slope_far_from_and_close_to_zero(size: float, dtype: str) -> None:
    check(LinearProblem((50,), (8, 40), dtype=dtype, activation="gelu", size=size))


def test_gelu_at_every_float16_value() -> None:
    """A weight of 1 makes the op gelu itself; the ends of the range must be x and 0, not NaN."""
    z = np.arange(2**16, dtype=np.uint16).view(np.float16)
    z = np.sort(z[np.isfinite(z)]).astype(np.float32)
    y = np.array(ops.linear(mx.array(z)[:, None], mx.ones((1, 1)), activation="gelu"))[:, 0]
    assert np.isfinite(y).all()
    np.testing.assert_array_equal(y[z > 6], z[z > 6])
    assert (np.abs(y[z < -14]) < 1e-30).all()
    assert (y[z >= 0] >= 0).all()
    assert (y[z <= 0] <= 0).all()


@pytest.mark.parametrize("rows", [(0,), (2, 0), (0, 3)])
@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_no_rows_give_no_rows_and_zero_gradients(
    rows: tuple[int, ...], activation: str | None
) -> None:
    found = results(LinearProblem(rows, (4, 6), activation=activation), ops)
    assert found["y"].shape == (*rows, 6)
    assert found["dx"].shape == (*rows, 4)
    assert found["dweight"].shape == (6, 4)
    assert not found["dweight"].any()
    assert not found["dbias"].any()


def test_a_row_with_nan_spoils_itself_alone() -> None:
    x, weight, bias = LinearProblem((5,), (8, 6), activation="gelu").differentiable
    spoiled = mx.where(mx.arange(5)[:, None] == 2, float("nan"), x)
    y = np.array(ops.linear(x, weight, bias, activation="gelu"))
    found = np.array(ops.linear(spoiled, weight, bias, activation="gelu"))
    assert np.isnan(found[2]).all()
    others = [0, 1, 3, 4]
    np.testing.assert_array_equal(found[others], y[others])


def test_what_gelu_came_from_is_kept_for_a_gradient_alone() -> None:
    x, weight = mx.ones((1024, 8)), mx.ones((4096, 8))
    mx.eval(x, weight)

    def peak(function: Any) -> float:
        mx.synchronize()
        mx.clear_cache()
        before = mx.get_active_memory()
        mx.reset_peak_memory()
        mx.eval(function(x))
        return (mx.get_peak_memory() - before) / (1024 * 4096 * 4)

    def f(x: mx.array) -> mx.array:
        return ops.linear(x, weight, activation="gelu")

    def with_gradient(x: mx.array) -> list[mx.array]:
        outputs, gradients = mx.vjp(f, [x], [mx.ones((1024, 4096))])
        return [*outputs, *gradients]

    assert peak(f) < 1.5
    assert peak(with_gradient) > 2.5  # y, what it came from, and the cotangent


@pytest.mark.parametrize("wrt", ["x", "weight", "bias"])
def test_gelu_has_a_gradient_with_respect_to_any_one_input_alone(wrt: str) -> None:
    problem = LinearProblem((5,), (8, 6), activation="gelu")
    inputs = dict(zip(("x", "weight", "bias"), problem.differentiable, strict=True))
    rest = {name: value for name, value in inputs.items() if name != wrt}

    def weighed(value: mx.array) -> mx.array:
        y = ops.linear(**{wrt: value}, **rest, activation="gelu")
        return (y * problem.cotangent).sum()

    expected = results(problem, ops)[f"d{wrt}"]
    for gradient in (
        mx.grad(weighed),
        mx.grad(mx.checkpoint(weighed)),
        mx.compile(mx.grad(weighed)),
    ):
        np.testing.assert_allclose(gradient(inputs[wrt]), expected, rtol=1e-5, atol=1e-6)


# ---- several layers of one x ---------------------------------------------------------------------


@pytest.mark.parametrize("bias", [False, True])
@pytest.mark.parametrize("dtype", DTYPES)
def test_several_layers_of_one_x_are_those_layers(dtype: str, bias: bool) -> None:
    own = [
        LinearProblem((2, 35), (20, width), dtype=dtype, bias=bias, seed=seed)
        for seed, width in enumerate((20, 7, 40))
    ]
    x = own[0].arrays["x"]
    weights = [p.arrays["weight"] for p in own]
    biases = [p.arrays["bias"] for p in own] if bias else []

    def together(x: mx.array, weights: list[mx.array], biases: list[mx.array]) -> list[mx.array]:
        return ops.linears(x, weights, biases)

    def weighed(*inputs: Any) -> mx.array:
        pairs = zip(together(*inputs), own, strict=True)
        return sum(((y * p.cotangent).astype(mx.float32).sum() for y, p in pairs), mx.array(0.0))

    outputs = together(x, weights, biases)
    dx, dweights, *dbiases = mx.grad(weighed, argnums=(0, 1, 2) if bias else (0, 1))(
        x, weights, biases
    )
    dx_of_each = mx.zeros(x.shape)
    for i, problem in enumerate(own):
        problem = problem.with_arrays(x=x)
        found = {"y": outputs[i], "dweight": dweights[i]} | (
            {"dbias": dbiases[0][i]} if bias else {}
        )
        check_results(problem, found)
        dx_of_each = dx_of_each + results(problem, ops)["dx"].astype(mx.float32)
    tolerance = 1e-5 if dtype == "float32" else 0.05
    np.testing.assert_allclose(as_numpy(dx), as_numpy(dx_of_each), rtol=tolerance, atol=tolerance)


def test_as_many_biases_as_weights_or_none() -> None:
    x, weight, bias = LinearProblem((3,), (4, 5)).differentiable
    with pytest.raises(ValueError, match=r"^\[linear\] weights must be one or more.*got 2 and 1\."):
        ops.linears(x, [weight, weight], [bias])
    with pytest.raises(ValueError, match=r"^\[linear\] weights must be one or more.*got 0 and 0\."):
        ops.linears(x, [])
    with pytest.raises(ValueError, match=r"^\[linear\] x must have shape .*got \(3, 4\)\."):
        ops.linears(x, [weight, mx.ones((5, 3))])
