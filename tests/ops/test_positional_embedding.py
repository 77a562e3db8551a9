"""positional_embedding, forward and gradients, against the reference and float64 numpy."""

from __future__ import annotations

from typing import Any

import mlx.core as mx
import numpy as np
import pytest
from arrays import DTYPES, ID_DTYPES, LAYOUTS, SEGMENT_PATTERNS
from hypothesis import given
from problems import EmbeddingProblem, check, results
from strategies import LENGTHS, WIDTHS, embedding_problems

from mlx_esm_kernels import ops

TABLES = mx.arange(33 * 4).reshape(33, 4) / 10, mx.arange(1026 * 4).reshape(1026, 4) * 100.0
CLS, PADDING, EOS, MASK = 0, 1, 2, 32


def embed(tokens: list[list[int]], **options: Any) -> np.ndarray:
    if "segment_ids" in options:
        options["segment_ids"] = mx.array(options["segment_ids"])
    return np.array(
        ops.positional_embedding(mx.array(tokens), *TABLES, padding_idx=PADDING, **options)
    )


@given(problem=embedding_problems())
def test_it_is_token_plus_position_whatever_the_input(problem: EmbeddingProblem) -> None:
    check(problem)


@pytest.mark.parametrize("mask_idx", [None, MASK])
@pytest.mark.parametrize("length", LENGTHS)
def test_every_length(length: int, mask_idx: int | None) -> None:
    check(EmbeddingProblem((2, length, 16), mask_idx=mask_idx, segments="runs", seed=length))


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("width", WIDTHS)
def test_every_width_in_every_dtype(width: int, dtype: str) -> None:
    check(EmbeddingProblem((2, 20, width), dtype=dtype, mask_idx=MASK, seed=width))


@pytest.mark.parametrize("mask_idx", [None, MASK])
@pytest.mark.parametrize("ids_layout", ["contiguous", "stepped"])
@pytest.mark.parametrize("ids_dtype", ID_DTYPES)
@pytest.mark.parametrize("pattern", SEGMENT_PATTERNS)
def test_every_segment_pattern_with_nan_and_infinity_in_padding(
    pattern: str, ids_dtype: str, ids_layout: str, mask_idx: int | None
) -> None:
    check(
        EmbeddingProblem(
            (3, 40, 8),
            segments=pattern,
            ids_dtype=ids_dtype,
            ids_layout=ids_layout,
            mask_idx=mask_idx,
            padding_rate=0.1,
            poisoned=True,
        )
    )


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("layout", [*LAYOUTS, "constant"])
@pytest.mark.parametrize("which", range(3), ids=["token_table", "position_table", "dx"])
def test_every_layout_is_read_where_it_lies(which: int, layout: str, dtype: str) -> None:
    layouts = ["contiguous"] * 3
    layouts[which] = layout
    check(EmbeddingProblem((2, 25, 8), dtype=dtype, mask_idx=MASK, layouts=tuple(layouts)))


@pytest.mark.parametrize("dtype", ["int8", "int16", "int32", "int64", "uint8", "uint32", "uint64"])
def test_every_integer_dtype_of_tokens(dtype: str) -> None:
    check(EmbeddingProblem((2, 25, 8), tokens_dtype=dtype, mask_idx=MASK))


def test_a_long_batch_adds_up_many_gradients_of_one_row() -> None:
    for dtype in DTYPES:
        check(EmbeddingProblem((16, 300, 3), dtype=dtype, vocabulary=4, seed=1))


def test_positions_count_what_is_not_padding() -> None:
    x = embed([[CLS, 5, PADDING, 6, EOS, PADDING]])
    positions = np.rint(x[0, :, 0] // 100) * 100
    expected = [PADDING + 1, PADDING + 2, 0, PADDING + 3, PADDING + 4, 0]
    np.testing.assert_array_equal(positions, np.array(expected) * 4 * 100)


def test_positions_start_again_with_every_segment() -> None:
    ids = [[7, 7, 7, -1, -1, 0, 7, 0]]
    x = embed([[5] * 8], segment_ids=ids)
    counts = np.array([1, 2, 3, 1, 2, 0, 4, 0])
    expected = np.where(counts > 0, (PADDING + counts) * 400 + 2, 0)
    np.testing.assert_allclose(x[0, :, 0], expected)


def test_padding_is_exactly_zero() -> None:
    x = embed([[PADDING, 5, 5, 5]], segment_ids=[[1, 1, 0, 2]], mask_idx=MASK)
    assert not x[0, [0, 2]].any()
    assert x[0, [1, 3]].all()


def test_padding_alone_needs_no_position() -> None:
    x = ops.positional_embedding(
        mx.array([[1, 1]]), mx.ones((33, 4)), mx.ones((1, 4)), padding_idx=1
    )
    assert not np.array(x).any()


def test_token_dropout_scales_by_what_was_masked_in_the_own_segment() -> None:
    tokens = [[CLS, 5, MASK, EOS, CLS, 5, 5, EOS, MASK, MASK]]
    ids = [[1, 1, 1, 1, 2, 2, 2, 2, 3, 3]]
    x = embed(tokens, segment_ids=ids, mask_idx=MASK)
    plain = embed(tokens, segment_ids=ids)
    position = plain - np.array(TABLES[0])[tokens]
    token_part = (x - position)[0, :, 1] / np.array(TABLES[0])[tokens[0], 1]
    quarter, none = 0.88 / (1 - 1 / 4), 0.88
    expected = [quarter, quarter, 0, quarter, none, none, none, none, 0, 0]
    np.testing.assert_allclose(token_part, expected, atol=2e-3)
    np.testing.assert_array_equal(x[0, 8:], position[0, 8:])


def test_without_a_mask_index_the_mask_token_is_a_token() -> None:
    x = embed([[MASK]])
    np.testing.assert_array_equal(x[0, 0], np.array(TABLES[0][MASK] + TABLES[1][2]))


def test_the_longest_protein_uses_the_last_row_of_the_table() -> None:
    x = embed([[5] * 1024])
    np.testing.assert_allclose(x[0, -1], np.array(TABLES[0][5] + TABLES[1][1025]))


def test_many_proteins_in_one_row_longer_than_the_table() -> None:
    ids = np.repeat(np.arange(1, 5), 1000)[None]
    x = embed([[5] * 4000], segment_ids=ids)
    np.testing.assert_array_equal(x[0, :1000], x[0, 3000:])


def test_tokens_and_segments_get_no_gradient_and_unused_rows_a_zero_one() -> None:
    problem = EmbeddingProblem((2, 10, 4), positions=17)
    found = results(problem, ops)
    used = np.unique(np.array(problem.tokens))
    unused = np.setdiff1d(np.arange(33), used[used != PADDING])
    assert not np.array(found["dtoken_table"])[unused].any()
    assert not np.array(found["dposition_table"])[[0, 1, -5, -4, -3, -2, -1]].any()


@pytest.mark.parametrize("shape", [(2, 0, 8), (0, 5, 8)])
@pytest.mark.parametrize("segments", ["none", "one"])
def test_nothing_in_nothing_out(shape: tuple[int, int, int], segments: str) -> None:
    problem = EmbeddingProblem(shape, segments=segments, mask_idx=MASK, positions=6)
    found = results(problem, ops)
    assert found["x"].shape == shape
    assert found["dtoken_table"].shape == (33, 8)
    assert not found["dtoken_table"].any()
    assert not found["dposition_table"].any()
