"""mx.vmap of the ops and of their gradients, over any choice of inputs and axes."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

import mlx.core as mx
import pytest
from hypothesis import given
from hypothesis import strategies as st
from layer_norm_problem import LayerNormProblem
from problems import (
    AttentionProblem,
    EmbeddingProblem,
    LinearProblem,
    check_results,
    lazy_results,
)
from rotary_problem import RotaryProblem

from mlx_esm_kernels import ops

AnyProblem = AttentionProblem | EmbeddingProblem | LayerNormProblem | LinearProblem | RotaryProblem
Axes = dict[str, int | None]

ATTENTION = AttentionProblem((2, 2, 9, 4), segments="holes", biases=True)
ATTENTION_DENSE = AttentionProblem((2, 2, 9, 4))
EMBEDDING = EmbeddingProblem((2, 9, 4), segments="runs", mask_idx=32, positions=11)
EMBEDDING_DENSE = EmbeddingProblem((2, 9, 4), positions=11, dtype="float16")
LINEAR = LinearProblem((2, 3), (5, 6))
LINEAR_GELU = LinearProblem((3,), (5, 6), activation="gelu", residual=True)
LAYER_NORM = LayerNormProblem((2, 3), 5)
LAYER_NORM_ADDED = LayerNormProblem((3,), 5, residual="added")
ROTARY = RotaryProblem((2, 2, 9, 6))
PROBLEMS = (
    *(ATTENTION, ATTENTION_DENSE, EMBEDDING, EMBEDDING_DENSE, LINEAR, LINEAR_GELU),
    *(LAYER_NORM, LAYER_NORM_ADDED, ROTARY),
)

every_op = pytest.mark.parametrize("problem", PROBLEMS, ids=lambda p: type(p).__name__)


def family(problem: AnyProblem, axes: Axes, size: int) -> list[AnyProblem]:
    """size problems that have the arrays without an axis in common and differ in the others."""
    others = [replace(problem, seed=seed) for seed in range(size)]
    mapped = [name for name, axis in axes.items() if axis is not None]
    return [problem.with_arrays(**{name: p.arrays[name] for name in mapped}) for p in others]


def stacked(problems: Sequence[AnyProblem], axes: Axes) -> list[mx.array]:
    """The arrays of all problems in one, those that are mapped along their axis."""
    return [
        problems[0].arrays[name]
        if axis is None
        else mx.stack([p.arrays[name] for p in problems], axis=axis)
        for name, axis in axes.items()
    ]


def mapped(
    problem: AnyProblem, axes: Axes, *, out_axis: int = 0, gradients: bool
) -> Callable[..., list[mx.array]]:
    """The vmap of the problem's op as a function of its arrays, in the order of axes."""

    def one(*arrays: mx.array) -> list[mx.array]:
        p = problem.with_arrays(**dict(zip(axes, arrays, strict=True)))
        if gradients:
            return list(lazy_results(p, ops).values())
        return [p.call(ops, *p.differentiable)]

    return mx.vmap(one, in_axes=tuple(axes.values()), out_axes=out_axis)


def check_each(
    problems: Sequence[AnyProblem], found: Sequence[mx.array], *, out_axis: int = 0
) -> None:
    """Outputs mapped over the problems against each problem's own truth."""
    for n, own in enumerate(problems):
        parts = [mx.take(x, n, axis=out_axis) for x in found]
        check_results(own, dict(zip(own.names, parts, strict=False)))


def check_vmap(problem: AnyProblem, axes: Axes, *, out_axis: int = 0, gradients: bool) -> None:
    """vmap over axes gives each problem of the family its own right answer."""
    problems = family(problem, axes, 3)
    function = mapped(problem, axes, out_axis=out_axis, gradients=gradients)
    check_each(problems, function(*stacked(problems, axes)), out_axis=out_axis)


@st.composite
def axes_of(draw: st.DrawFn, problem: AnyProblem) -> Axes:
    """An axis, or None, for each array of the problem; at least one axis."""
    axes: Axes = {}
    for name, x in problem.arrays.items():
        axes[name] = draw(st.none() | st.integers(-1, x.ndim))
    if all(axis is None for axis in axes.values()):
        axes[draw(st.sampled_from(sorted(axes)))] = 0
    return axes


@every_op
@given(data=st.data())
def test_any_inputs_along_any_axes(problem: AnyProblem, data: st.DataObject) -> None:
    axes = data.draw(axes_of(problem))
    out_axis = data.draw(st.sampled_from((0, 1, 2)))
    check_vmap(problem, axes, out_axis=out_axis, gradients=False)


@every_op
@given(data=st.data())
def test_gradients_of_any_inputs_along_any_axes(problem: AnyProblem, data: st.DataObject) -> None:
    check_vmap(problem, data.draw(axes_of(problem)), gradients=True)


@every_op
def test_each_input_alone(problem: AnyProblem) -> None:
    for name in problem.arrays:
        axes = dict.fromkeys(problem.arrays) | {name: 0}
        check_vmap(problem, axes, gradients=True)


@every_op
def test_every_input_at_once(problem: AnyProblem) -> None:
    check_vmap(problem, dict.fromkeys(problem.arrays, 0), gradients=True)


@every_op
def test_one_vmap_in_another(problem: AnyProblem) -> None:
    axes: Axes = dict.fromkeys(problem.arrays, 0)
    problems = family(problem, axes, 6)
    arrays = [x.reshape(2, 3, *x.shape[1:]) for x in stacked(problems, axes)]
    inner = mapped(problem, axes, gradients=True)
    found = mx.vmap(inner, in_axes=(0,) * len(arrays))(*arrays)
    check_each(problems, [x.flatten(0, 1) for x in found])


@every_op
def test_the_gradient_of_a_vmap(problem: AnyProblem) -> None:
    axes: Axes = dict.fromkeys(problem.arrays, 0)
    problems = family(problem, axes, 3)
    arrays = dict(zip(axes, stacked(problems, axes), strict=True))
    inputs = [n for n, x in problem.arrays.items() if any(x is y for y in problem.differentiable)]
    [cotangent] = [n for n, x in problem.arrays.items() if x is problem.cotangent]

    def forward(*differentiable: mx.array) -> list[mx.array]:
        changed = arrays | dict(zip(inputs, differentiable, strict=True))
        return mapped(problem, axes, gradients=False)(*changed.values())

    outputs, gradients = mx.vjp(forward, [arrays[n] for n in inputs], [arrays[cotangent]])
    check_each(problems, [*outputs, *gradients])
