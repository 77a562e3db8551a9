"""masked_attention, forward and gradients, against the reference and float64 numpy."""

from __future__ import annotations

import mlx.core as mx
import numpy as np
import pytest
from arrays import DTYPES, ID_DTYPES, LAYOUTS, SEGMENT_PATTERNS, arrange
from hypothesis import given
from problems import AttentionProblem, check, check_results, results
from strategies import HEAD_DIMS, LENGTHS, attention_problems

from mlx_esm_kernels import ops


@given(problem=attention_problems())
def test_it_is_attention_within_segments_whatever_the_input(problem: AttentionProblem) -> None:
    check(problem)


@pytest.mark.parametrize("length", LENGTHS)
def test_every_length_around_a_tile_edge(length: int) -> None:
    check(AttentionProblem((2, 2, length, 16), segments="tail_padding", biases=True, seed=length))
    check(AttentionProblem((1, 1, length, 24), seed=length))


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("dim", HEAD_DIMS)
def test_common_and_odd_head_dims_in_every_dtype(dim: int, dtype: str) -> None:
    check(AttentionProblem((1, 2, 40, dim), dtype=dtype, segments="runs", seed=dim))


def test_every_head_dim_from_1_to_256() -> None:
    for dim in range(1, 257):
        check(AttentionProblem((1, 1, 10, dim), segments="holes", biases=dim % 2 == 0, seed=dim))


@pytest.mark.parametrize("dim", [257, 320])
def test_head_dims_beyond_the_kernels_are_right_as_well(dim: int) -> None:
    check(AttentionProblem((2, 2, 12, dim), segments="runs", biases=True))


@pytest.mark.parametrize("length", [385, 1030])
def test_lengths_of_several_key_blocks(length: int) -> None:
    check(AttentionProblem((1, 1, length, 8), segments="runs", biases=True, seed=length))
    check(AttentionProblem((1, 1, length, 8), seed=length))


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("layout", LAYOUTS)
def test_every_layout_is_read_where_it_lies(layout: str, dtype: str) -> None:
    check(AttentionProblem((2, 3, 25, 8), dtype=dtype, biases=True, layouts=(layout,) * 4))


@pytest.mark.parametrize("layout", [*LAYOUTS, "constant"])
@pytest.mark.parametrize("which", range(4), ids=["q", "k", "v", "do"])
def test_one_input_of_another_layout_than_the_others(which: int, layout: str) -> None:
    layouts = ["contiguous"] * 4
    layouts[which] = layout
    check(AttentionProblem((2, 3, 25, 8), segments="runs", layouts=tuple(layouts)))


@pytest.mark.parametrize("ids_layout", ["contiguous", "stepped"])
@pytest.mark.parametrize("ids_dtype", ID_DTYPES)
@pytest.mark.parametrize("pattern", SEGMENT_PATTERNS)
def test_every_segment_pattern_with_nan_and_infinity_in_padding(
    pattern: str, ids_dtype: str, ids_layout: str
) -> None:
    check(
        AttentionProblem(
            (3, 2, 40, 8),
            segments=pattern,
            ids_dtype=ids_dtype,
            ids_layout=ids_layout,
            biases=True,
            poisoned=True,
        )
    )


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("score_size", [1e-3, 30.0, 300.0])
@pytest.mark.parametrize("biases", [False, True])
def test_scores_up_to_a_thousand_stay_finite(biases: bool, score_size: float, dtype: str) -> None:
    check(AttentionProblem((2, 2, 65, 16), dtype=dtype, biases=biases, score_size=score_size))


@pytest.mark.parametrize("sign", [1.0, -1.0])
def test_scores_that_all_lie_far_from_zero(sign: float) -> None:
    """The maximum must be taken among the keys seen: exp of 1000 overflows, of -1000 vanishes."""
    rng = np.random.default_rng(0)
    q = arrange(1 + 0.01 * rng.standard_normal((1, 1, 33, 4)), "contiguous", "float32")
    k, v = sign * q, arrange(rng.standard_normal(q.shape), "contiguous", "float32")
    ids = mx.array(np.arange(33)[None] % 3)
    o = np.array(ops.masked_attention(q, k, v, scale=250.0, segment_ids=ids))
    real = np.array(ids)[0] != 0
    assert np.isfinite(o).all()
    assert (o[0, 0, real] != 0).all()
    assert (o[0, 0, ~real] == 0).all()


@pytest.mark.parametrize("biases", [False, True])
def test_scores_that_are_large_for_later_keys_alone(biases: bool) -> None:
    """What was summed relative to a score of 0 until then must be given up."""
    problem = AttentionProblem((1, 2, 300, 16), biases=biases)
    k = mx.array(np.where(np.arange(300)[:, None] < 200, 1, 300) * np.array(problem.arrays["k"]))
    check(problem.with_arrays(k=k.astype(mx.float32)))


@pytest.mark.parametrize("shift", [-300.0, -100.0, -20.0, 20.0, 100.0, 300.0])
def test_a_constant_added_to_all_scores_changes_nothing(shift: float) -> None:
    q, k, v = (np.array(x) for x in AttentionProblem((1, 2, 150, 16)).differentiable)
    q[..., 0], k[..., 0] = 1, 0
    o = ops.masked_attention(*map(mx.array, (q, k, v)), scale=1.0)
    k[..., 0] = shift
    assert mx.allclose(ops.masked_attention(*map(mx.array, (q, k, v)), scale=1.0), o, atol=1e-3)


@pytest.mark.parametrize("shift", [90.0, 177.5, 300.0, 355.0, 710.0])
def test_half_the_keys_lie_far_above_the_others(shift: float) -> None:
    """At 355 = 512 ln(2) the sign and the eight bits of an exponent have wrapped around to 0."""
    q, k, v = (np.array(x) for x in AttentionProblem((1, 2, 150, 16)).differentiable)
    q[..., 0], k[..., 0] = 1, np.where(np.arange(150) < 75, 0, shift)
    o = ops.masked_attention(*map(mx.array, (q, k, v)), scale=1.0)
    upper = ops.masked_attention(*(mx.array(x[..., 75:, :]) for x in (q, k, v)), scale=1.0)
    assert mx.allclose(o[..., 75:, :], upper, atol=1e-3)


def test_values_that_a_large_weight_would_take_beyond_float32() -> None:
    q, k, v = AttentionProblem((1, 2, 70, 16), score_size=5.0).differentiable
    o = ops.masked_attention(q, k, v)
    large = ops.masked_attention(q, k, v * 2.0**104) * 2.0**-104
    assert mx.allclose(large, o, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("value", [2**32, 2**40, -(2**63), 256])
def test_an_id_whose_low_bits_are_zero_is_no_padding(value: int) -> None:
    q, k, v = AttentionProblem((1, 1, 6, 4)).differentiable
    o = ops.masked_attention(q, k, v, segment_ids=mx.full((1, 6), value, dtype=mx.int64))
    assert mx.array_equal(o, ops.masked_attention(q, k, v))


@pytest.mark.parametrize("shape", [(2, 3, 0, 8), (0, 3, 5, 8), (2, 0, 5, 8)])
@pytest.mark.parametrize("dtype", DTYPES)
def test_nothing_in_nothing_out(shape: tuple[int, int, int, int], dtype: str) -> None:
    for segments, biases in (("none", False), ("one", True)):
        problem = AttentionProblem(shape, dtype=dtype, segments=segments, biases=biases)
        found = results(problem, ops)
        for name, x in zip(problem.names[1:], problem.differentiable, strict=True):
            assert found[name].shape == x.shape
            assert found[name].dtype == x.dtype
            assert not found[name].any()
        assert found["o"].shape == shape
        assert found["o"].dtype == problem.differentiable[0].dtype


def test_one_key_gives_its_own_value() -> None:
    problem = AttentionProblem((2, 3, 1, 5), score_size=300.0)
    found = results(problem, ops)
    assert mx.array_equal(found["o"], problem.differentiable[2])
    assert mx.array_equal(found["dv"], problem.cotangent)


def test_the_default_scale_is_one_over_the_root_of_d() -> None:
    q, k, v = AttentionProblem((1, 2, 9, 16)).differentiable
    o = ops.masked_attention(q, k, v)
    assert mx.array_equal(o, ops.masked_attention(q, k, v, scale=0.25))
    assert not mx.array_equal(o, ops.masked_attention(q, k, v, scale=1.0))


def test_a_protein_is_the_same_alone_padded_and_packed() -> None:
    q, k, v = AttentionProblem((1, 2, 60, 16)).differentiable
    ids = mx.array([[3] * 20 + [0] * 10 + [9] * 30])
    packed = ops.masked_attention(q, k, v, segment_ids=ids)
    for start, stop in ((0, 20), (30, 60)):
        alone = ops.masked_attention(*(x[:, :, start:stop] for x in (q, k, v)))
        assert mx.allclose(packed[:, :, start:stop], alone, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("dim", [16, 64])
@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_half_precision_is_float32_rounded_once(dtype: str, dim: int) -> None:
    problem = AttentionProblem((1, 2, 150, dim), dtype=dtype, segments="runs")
    arrays = (*problem.differentiable, problem.cotangent)
    *inputs, do = (x.astype(mx.float32) for x in arrays)
    wide = mx.vjp(lambda *x: problem.call(ops, *x), inputs, [do])
    found = results(problem, ops)
    o = wide[0][0].astype(found["o"].dtype)
    # Where float32's own last bits decide, the roundings may differ.
    assert mx.mean(o != found["o"]) < 0.01
    # The gradients use o as it was stored.
    for name, gradient in zip(problem.names[1:], wide[1], strict=True):
        assert mx.allclose(
            found[name], gradient, rtol=2**-7, atol=2**-9 * mx.max(mx.abs(gradient)).item()
        ), name


def test_the_order_of_a_segments_keys_does_not_matter() -> None:
    q, k, v = AttentionProblem((1, 2, 40, 8)).differentiable
    order = mx.array(np.random.default_rng(0).permutation(40))
    o = ops.masked_attention(q, k, v)
    shuffled = ops.masked_attention(q, k[:, :, order], v[:, :, order])
    assert mx.allclose(o, shuffled, rtol=1e-5, atol=1e-6)


def test_one_array_as_q_k_and_v_sums_their_gradients() -> None:
    problem = AttentionProblem((2, 2, 20, 8), segments="runs")
    q, do = problem.differentiable[0], problem.cotangent
    separate = mx.vjp(lambda *x: problem.call(ops, *x), [q, q, q], [do])[1]
    together = mx.vjp(lambda x: problem.call(ops, x, x, x), [q], [do])[1][0]
    assert mx.allclose(together, sum(separate[1:], separate[0]), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("layout", ["contiguous", "permuted", "stepped", "broadcast"])
def test_inputs_are_left_as_they_were(layout: str) -> None:
    problem = AttentionProblem((2, 2, 30, 8), segments="runs", biases=True, layouts=(layout,) * 4)
    inputs = (*problem.differentiable, problem.cotangent)
    before = [np.array(x) for x in inputs]
    results(problem, ops)
    for x, copy in zip(inputs, before, strict=True):
        np.testing.assert_array_equal(np.array(x), copy)


def test_an_input_that_is_not_evaluated_yet() -> None:
    problem = AttentionProblem((2, 2, 30, 8), segments="runs")
    lazy = [(x * 2) / 2 for x in problem.differentiable]
    outputs, gradients = mx.vjp(lambda *x: problem.call(ops, *x), lazy, [problem.cotangent * 1])
    found = dict(zip(problem.names, [*outputs, *gradients], strict=True))
    check_results(problem, found)
