"""The comparison that all op tests rest on must turn wrong answers away."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import closeness
import mlx.core as mx
import numpy as np
import pytest
from arrays import DTYPES, mlx_dtype
from closeness import as_numpy, assert_all_close, assert_close
from problems import AttentionProblem, EmbeddingProblem, LinearProblem, Problem, results
from truth import Array

from mlx_esm_kernels.models import reference

Results = dict[str, mx.array]

ATTENTION = AttentionProblem((2, 2, 40, 8), segments="tail_padding", biases=True, seed=3)
EMBEDDING = EmbeddingProblem((2, 40, 8), mask_idx=32, segments="tail_padding", seed=3)
LINEAR = LinearProblem((2, 40), (24, 16), activation="gelu", seed=3)
PROBLEMS = (ATTENTION, EMBEDDING, LINEAR)


def judge(problem: Problem, actual: Results) -> None:
    assert_all_close(actual, results(problem, reference), *problem.answers())


def with_attention(**replaced: Any) -> Results:
    """Results of ATTENTION where an input or option of the forward pass was changed."""

    class Changed:
        @staticmethod
        def masked_attention(q: mx.array, k: mx.array, v: mx.array, **options: Any) -> mx.array:
            changed = {"q": q, "k": k, "v": v} | options | replaced
            return reference.masked_attention(**changed)

    return results(ATTENTION, Changed)


@pytest.mark.parametrize("problem", PROBLEMS, ids=lambda p: type(p).__name__)
@pytest.mark.parametrize("factor", [1 + 1e-5, 0.0, -1.0, 1.1])
def test_every_result_off_by_a_factor_is_rejected(problem: Problem, factor: float) -> None:
    right = results(problem, reference)
    judge(problem, right)
    for name in problem.names:
        with pytest.raises(AssertionError, match=f"^{name}"):
            judge(problem, right | {name: right[name] * factor})


@pytest.mark.parametrize("dtype", DTYPES)
def test_a_reference_is_close_to_truth_in_every_dtype(dtype: str) -> None:
    judge(
        AttentionProblem((2, 2, 40, 8), dtype=dtype, segments="holes"),
        results(AttentionProblem((2, 2, 40, 8), dtype=dtype, segments="holes"), reference),
    )


def test_a_dropped_key_is_rejected() -> None:
    ids = ATTENTION.segment_ids
    assert ids is not None
    alone = (mx.arange(40) == 5) & (ids != 0)  # key 5 as a segment of its own
    dropped = mx.where(alone, 99, ids)
    with pytest.raises(AssertionError, match="units of rounding"):
        judge(ATTENTION, with_attention(segment_ids=dropped))


def test_a_padded_key_that_is_seen_is_rejected() -> None:
    with pytest.raises(AssertionError, match="not exactly 0"):
        judge(ATTENTION, with_attention(segment_ids=None))


def test_a_forgotten_bias_is_rejected() -> None:
    with pytest.raises(AssertionError, match="units of rounding"):
        judge(ATTENTION, with_attention(bias_k=mx.zeros((2, 8))))


@pytest.mark.parametrize("scale", [8**-0.5 * (1 + 1e-4), 1.0, 8.0**-1])
def test_a_wrong_scale_is_rejected(scale: float) -> None:
    with pytest.raises(AssertionError, match="units of rounding"):
        judge(ATTENTION, with_attention(scale=scale))


def test_a_tanh_gelu_is_rejected() -> None:
    right = results(LINEAR, reference)
    x, weight, bias = LINEAR.differentiable
    z = x @ weight.T + bias
    tanh = 0.5 * z * (1 + mx.tanh(0.7978845608 * (z + 0.044715 * z**3)))
    with pytest.raises(AssertionError, match="units of rounding"):
        judge(LINEAR, right | {"y": tanh})


def _swap_rows(x: Array) -> Array:
    x[..., [2, 3], :] = x[..., [3, 2], :]
    return x


def _drop_one(x: Array) -> Array:
    x.flat[np.argmax(np.abs(x))] = 0
    return x


def _nan(x: Array) -> Array:
    x.flat[3] = np.nan
    return x


def _infinity(x: Array) -> Array:
    x.flat[3] = np.inf
    return x


@pytest.mark.parametrize("spoil", [_swap_rows, _drop_one, _nan, _infinity])
@pytest.mark.parametrize("problem", PROBLEMS, ids=lambda p: type(p).__name__)
def test_swapped_rows_one_lost_element_nan_and_infinity_are_rejected(
    problem: Problem, spoil: Callable[[Array], Array]
) -> None:
    right = results(problem, reference)
    for name in problem.names:
        if name.startswith("dbias") and spoil is _swap_rows:
            continue
        wrong = mx.array(spoil(np.array(right[name])))
        with pytest.raises(AssertionError, match=f"^{name}"):
            judge(problem, right | {name: wrong})


@pytest.mark.parametrize("value", [1e-30, -1.0, np.nan])
def test_anything_but_zero_in_padding_is_rejected(value: float) -> None:
    ids = ATTENTION.segment_ids
    assert ids is not None
    row, column = map(int, np.argwhere(np.array(ids) == 0)[0])
    right = results(ATTENTION, reference)
    for name in ("o", "dq", "dk", "dv"):
        wrong = np.array(right[name])
        wrong[row, 0, column, 2] = value
        with pytest.raises(AssertionError, match=f"^{name}"):
            judge(ATTENTION, right | {name: mx.array(wrong)})


def test_another_dtype_or_shape_or_name_is_rejected() -> None:
    right = results(LINEAR, reference)
    for name in LINEAR.names:
        with pytest.raises(AssertionError, match="float16"):
            judge(LINEAR, right | {name: right[name].astype(mx.float16)})
        with pytest.raises(AssertionError, match="not"):
            judge(LINEAR, right | {name: right[name][None]})
        with pytest.raises(AssertionError, match="not"):
            judge(LINEAR, right | {name: right[name][:-1]})
    with pytest.raises(AssertionError):
        judge(LINEAR, {"y": right["y"]})


def test_a_small_row_is_held_to_its_own_size() -> None:
    true = np.array([[1e6, 2e6], [1e-6, 2e-6]])
    good = mx.array(true.astype(np.float32))
    unit = 2.0**-23 * np.abs(true)
    assert_close("rows", good, good, true, unit)
    wrong = mx.array((true * [[1, 1], [1, 1.001]]).astype(np.float32))
    with pytest.raises(AssertionError, match=r"^rows\[1, 1\].* 1 of 4 elements are off"):
        assert_close("rows", wrong, good, true, unit)


def test_a_poor_reference_excuses_only_so_much() -> None:
    true = np.ones(4)
    unit = np.full(4, 2.0**-23)

    def off_by(units: float) -> mx.array:
        return mx.array((true + units * unit).astype(np.float32))

    assert_close("x", off_by(2), off_by(0), true, unit)
    assert_close("x", off_by(6), off_by(-2), true, unit)
    assert_close("x", off_by(closeness.LIMIT), off_by(1e6), true, unit)
    with pytest.raises(AssertionError):
        assert_close("x", off_by(3), off_by(0), true, unit)
    with pytest.raises(AssertionError):
        assert_close("x", off_by(7), off_by(-2), true, unit)
    with pytest.raises(AssertionError):
        assert_close("x", off_by(closeness.LIMIT + 1), off_by(1e6), true, unit)


def test_a_reference_with_nan_proves_nothing() -> None:
    true, good = np.ones(2), mx.ones(2)
    with pytest.raises(AssertionError, match=r"^reference x"):
        assert_close("x", good, mx.array([1.0, np.nan]), true, np.full(2, 1e-7))


def test_empty_results_need_only_shape_and_dtype() -> None:
    empty = mx.zeros((2, 0, 3))
    assert_close("x", empty, empty, np.zeros((2, 0, 3)), np.zeros((2, 0, 3)))
    with pytest.raises(AssertionError):
        assert_close("x", mx.zeros((2, 3, 0)), empty, np.zeros((2, 0, 3)), np.zeros((2, 0, 3)))


@pytest.mark.parametrize("dtype", DTYPES)
def test_as_numpy_is_exact(dtype: str) -> None:
    values = mx.array([1.0, -0.3333333, 1e-5, 300.0]).astype(mlx_dtype(dtype))
    assert mx.array_equal(
        mx.array(as_numpy(values).astype(np.float32)).astype(values.dtype), values
    )
