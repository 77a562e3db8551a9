"""layer_norm and add_layer_norm, forward and gradients, against MLX's and float64 numpy."""

from __future__ import annotations

import mlx.core as mx
import numpy as np
import pytest
from arrays import DTYPES, LAYOUTS
from hypothesis import given
from layer_norm_problem import LayerNormProblem
from problems import check, results
from strategies import WIDTHS, layer_norm_problems

from mlx_esm_kernels import ops

RESIDUALS = ("none", "through", "added")


@given(problem=layer_norm_problems())
def test_rows_have_mean_0_and_variance_1_whatever_the_input(problem: LayerNormProblem) -> None:
    check(problem)


@pytest.mark.parametrize("residual", RESIDUALS)
@pytest.mark.parametrize("dtype", DTYPES)
def test_every_width(dtype: str, residual: str) -> None:
    for width in (*WIDTHS, 1500):
        check(LayerNormProblem((9,), width, dtype=dtype, residual=residual))


@pytest.mark.parametrize("residual", RESIDUALS)
@pytest.mark.parametrize("rows", [(), (1,), (2, 3), (2, 1, 4), (1027,)])
def test_any_number_of_leading_axes(rows: tuple[int, ...], residual: str) -> None:
    check(LayerNormProblem(rows, 70, residual=residual))


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("layout", [*LAYOUTS, "constant"])
@pytest.mark.parametrize("which", range(3), ids=["x", "delta", "cotangent"])
def test_every_layout(which: int, layout: str, dtype: str) -> None:
    layouts = ["contiguous"] * 3
    layouts[which] = layout
    check(LayerNormProblem((2, 3, 5), 18, dtype=dtype, residual="added", layouts=tuple(layouts)))


def test_a_mean_far_above_the_deviation_does_not_cancel() -> None:
    check(LayerNormProblem((40,), 320, offset=1000.0))


@pytest.mark.parametrize("dtype", DTYPES)
def test_a_constant_row_is_the_bias(dtype: str) -> None:
    x, weight, bias = LayerNormProblem((3,), 40, dtype=dtype).differentiable
    y = ops.layer_norm(mx.full(x.shape, 2.0, x.dtype), weight, bias)
    assert mx.array_equal(y, mx.broadcast_to(bias, y.shape))


@pytest.mark.parametrize("dtype", DTYPES)
def test_the_norm_of_a_sum_is_that_of_the_sum_bit_for_bit(dtype: str) -> None:
    problem = LayerNormProblem((50,), 100, dtype=dtype, residual="added")
    x, weight, bias, delta = problem.differentiable
    total, y = ops.add_layer_norm(x, delta, weight, bias)
    assert mx.array_equal(total, x + delta)
    assert mx.array_equal(y, ops.layer_norm(total, weight, bias))


def test_without_a_delta_x_itself_comes_back() -> None:
    x, weight, bias = LayerNormProblem((5,), 8).differentiable
    same, y = ops.add_layer_norm(x, None, weight, bias)
    assert mx.array_equal(same, x)
    assert mx.array_equal(y, ops.layer_norm(x, weight, bias))


@pytest.mark.parametrize("rows", [(0,), (2, 0)])
@pytest.mark.parametrize("residual", RESIDUALS)
def test_no_rows_give_no_rows_and_zero_gradients(rows: tuple[int, ...], residual: str) -> None:
    found = results(LayerNormProblem(rows, 6, residual=residual), ops)
    assert found["normed"].shape[-len(rows) - 1 :] == (*rows, 6)
    assert found["dx"].shape == (*rows, 6)
    assert not found["dweight"].any()
    assert not found["dbias"].any()


def test_a_row_with_nan_spoils_itself_alone() -> None:
    x, weight, bias = LayerNormProblem((5,), 19).differentiable
    spoiled = mx.where((mx.arange(5)[:, None] == 2) & (mx.arange(19) == 18), float("nan"), x)
    y, found = (np.array(ops.layer_norm(a, weight, bias)) for a in (x, spoiled))
    assert np.isnan(found[2]).all()
    others = [0, 1, 3, 4]
    np.testing.assert_array_equal(found[others], y[others])
