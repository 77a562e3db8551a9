"""What a GPU without kernels of ours runs: the ops built from MLX's own, here on the CPU."""

from __future__ import annotations

from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import mlx.core as mx
import pytest
from arrays import DTYPES, SEGMENT_PATTERNS
from closeness import as_numpy
from hypothesis import given, settings
from layer_norm_problem import LayerNormProblem
from problems import (
    AttentionProblem,
    EmbeddingProblem,
    LinearProblem,
    check_results,
    results,
)
from rotary_problem import RotaryProblem
from strategies import attention_problems, embedding_problems

from mlx_esm_kernels import _ext


def _masked_attention(
    q: mx.array, k: mx.array, v: mx.array, *, scale: float | None, **options: Any
) -> mx.array:
    return _ext.masked_attention_composed(q, k, v, scale or q.shape[-1] ** -0.5, **options)


def _linear(*inputs: mx.array, activation: str | None) -> mx.array:
    return _ext.linear_composed(*inputs, gelu=activation == "gelu")


composed = SimpleNamespace(
    masked_attention=_masked_attention,
    positional_embedding=_ext.positional_embedding_composed,
    linear=_linear,
    layer_norm=_ext.layer_norm_composed,
    rotary=_ext.rotary_composed,
)


@pytest.mark.parametrize("biases", [False, True])
@pytest.mark.parametrize("pattern", SEGMENT_PATTERNS)
def test_attention_with_every_segment_pattern_and_nan_in_padding(
    pattern: str, biases: bool
) -> None:
    problem = AttentionProblem((2, 2, 21, 8), segments=pattern, biases=biases, poisoned=True)
    check_results(problem, results(problem, composed))


@settings(max_examples=15)
@given(problem=attention_problems())
def test_attention_whatever_the_input(problem: AttentionProblem) -> None:
    if 0 not in problem.shape:
        problem = replace(problem, dtype="float32")
        check_results(problem, results(problem, composed))


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_attention_in_half_precision(dtype: str) -> None:
    """MLX rounds the scores to half precision, ours do not: a few roundings more are its right."""
    problem = AttentionProblem((2, 2, 21, 8), dtype=dtype, segments="runs", biases=True)
    truth = problem.answers()[0]
    epsilon = mx.finfo(getattr(mx, dtype)).eps
    for name, actual in results(problem, composed).items():
        error = abs(as_numpy(actual) - truth[name]).max()
        assert error <= 4 * epsilon * abs(truth[name]).max(), name


@pytest.mark.parametrize("mask_idx", [None, 32])
@pytest.mark.parametrize("pattern", SEGMENT_PATTERNS)
def test_embedding_with_every_segment_pattern(pattern: str, mask_idx: int | None) -> None:
    problem = EmbeddingProblem((2, 23, 8), segments=pattern, mask_idx=mask_idx, padding_rate=0.2)
    check_results(problem, results(problem, composed))


@settings(max_examples=15)
@given(problem=embedding_problems())
def test_embedding_whatever_the_input(problem: EmbeddingProblem) -> None:
    if 0 not in problem.shape:
        check_results(problem, results(problem, composed))


@pytest.mark.parametrize("activation", [None, "gelu"])
@pytest.mark.parametrize("dtype", DTYPES)
def test_linear_in_every_dtype(dtype: str, activation: str | None) -> None:
    problem = LinearProblem((2, 9), (17, 12), dtype=dtype, activation=activation)
    check_results(problem, results(problem, composed))


@pytest.mark.parametrize("dtype", DTYPES)
def test_rotary(dtype: str) -> None:
    problem = RotaryProblem((2, 2, 9, 6), dtype=dtype)
    check_results(problem, results(problem, composed))


def test_layer_norm() -> None:
    """In float32: in half precision MLX rounds between the steps on a CPU."""
    problem = LayerNormProblem((2, 9), 17)
    check_results(problem, results(problem, composed))
