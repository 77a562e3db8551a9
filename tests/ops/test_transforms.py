"""The ops under MLX's transformations: grad, vjp, vmap, compile, checkpoint, streams, threads."""

from __future__ import annotations

import itertools
from collections.abc import Callable

import mlx.core as mx
import pytest
from layer_norm_problem import LayerNormProblem
from problems import (
    AttentionProblem,
    EmbeddingProblem,
    LinearProblem,
    Problem,
    check_results,
)
from rotary_problem import RotaryProblem

from mlx_esm_kernels import ops

AnyProblem = AttentionProblem | EmbeddingProblem | LayerNormProblem | LinearProblem | RotaryProblem

PROBLEMS: dict[str, AnyProblem] = {
    "attention": AttentionProblem((2, 2, 20, 8), segments="holes", biases=True, poisoned=True),
    "attention_dense": AttentionProblem((2, 2, 20, 8)),
    "attention_half": AttentionProblem((2, 2, 20, 8), dtype="float16", segments="runs"),
    "embedding": EmbeddingProblem((2, 20, 8), segments="runs", mask_idx=32),
    "embedding_dense": EmbeddingProblem((2, 20, 8)),
    "layer_norm": LayerNormProblem((2, 5), 19),
    "layer_norm_through": LayerNormProblem((2, 5), 19, residual="through"),
    "layer_norm_added": LayerNormProblem((2, 5), 19, residual="added", dtype="float16"),
    "linear": LinearProblem((2, 5), (7, 9)),
    "linear_gelu": LinearProblem((2, 5), (7, 9), activation="gelu"),
    "linear_half": LinearProblem((2, 5), (7, 9), activation="gelu", dtype="bfloat16"),
    "linear_residual": LinearProblem((2, 5), (7, 9), activation="gelu", residual=True),
    "rotary": RotaryProblem((2, 2, 20, 12)),
    "rotary_half": RotaryProblem((2, 2, 20, 8), dtype="bfloat16"),
    "linear_no_bias": LinearProblem((2, 5), (7, 9), bias=False, activation="gelu"),
}
every_op = pytest.mark.parametrize("problem", PROBLEMS.values(), ids=PROBLEMS)


def loss_of(problem: Problem) -> Callable[..., mx.array]:
    """sum(cotangent * op), whose gradients are the ones that results() has."""
    real = mx.isfinite(problem.cotangent)
    cotangent = mx.where(real, problem.cotangent, 0).astype(mx.float32)

    def loss(*inputs: mx.array) -> mx.array:
        return (problem.call(ops, *inputs).astype(mx.float32) * cotangent).sum()

    return loss


@every_op
def test_grad_and_vjp_of_every_choice_of_inputs(problem: AnyProblem) -> None:
    inputs = problem.differentiable
    numbers = range(len(inputs))
    for count in range(1, len(inputs) + 1):
        for argnums in itertools.combinations(numbers, count):
            gradients = mx.grad(loss_of(problem), argnums=argnums)(*inputs)
            if count == 1:  # MLX gives the one array itself
                gradients = (gradients,)
            found = {problem.names[1 + i]: g for i, g in zip(argnums, gradients, strict=True)}
            check_results(problem, found)


@every_op
def test_value_and_grad(problem: AnyProblem) -> None:
    loss = loss_of(problem)
    every = tuple(range(len(problem.differentiable)))
    value, gradients = mx.value_and_grad(loss, argnums=every)(*problem.differentiable)
    check_results(problem, dict(zip(problem.names[1:], gradients, strict=True)))
    assert value.item() == loss(*problem.differentiable).item()


@every_op
def test_gradients_flow_on_through_what_made_the_inputs(problem: AnyProblem) -> None:
    halves = [x / 2 for x in problem.differentiable]

    def doubled(*inputs: mx.array) -> mx.array:
        return loss_of(problem)(*(x * 2 for x in inputs))

    gradients = mx.grad(doubled, argnums=tuple(range(len(halves))))(*halves)
    halved = [g / 2 for g in gradients]
    check_results(problem, dict(zip(problem.names[1:], halved, strict=True)))


@every_op
def test_compiled_forward_and_gradients(problem: AnyProblem) -> None:
    @mx.compile
    def compiled(inputs: list[mx.array], cotangent: mx.array) -> list[mx.array]:
        outputs, gradients = mx.vjp(lambda *x: problem.call(ops, *x), inputs, [cotangent])
        return [*outputs, *gradients]

    for _ in range(2):
        found = compiled(list(problem.differentiable), problem.cotangent)
        check_results(problem, dict(zip(problem.names, found, strict=True)))


@every_op
def test_compiled_gradient_of_a_loss(problem: AnyProblem) -> None:
    every = tuple(range(len(problem.differentiable)))
    compiled = mx.compile(mx.grad(loss_of(problem), argnums=every))
    gradients = compiled(*problem.differentiable)
    check_results(problem, dict(zip(problem.names[1:], gradients, strict=True)))


def test_compiled_with_tokens_and_segments_as_inputs() -> None:
    seen = [EmbeddingProblem((2, 20, 8), segments="one", mask_idx=32, seed=s) for s in range(3)]

    @mx.compile
    def compiled(
        tokens: mx.array, ids: mx.array, tables: list[mx.array], cotangent: mx.array
    ) -> list[mx.array]:
        def forward(*tables: mx.array) -> mx.array:
            return seen[0].call(ops, *tables, tokens=tokens, segment_ids=ids)

        outputs, gradients = mx.vjp(forward, tables, [cotangent])
        return [*outputs, *gradients]

    for problem in seen:
        assert problem.segment_ids is not None
        inputs = list(problem.differentiable)
        found = compiled(problem.tokens, problem.segment_ids, inputs, problem.cotangent)
        check_results(problem, dict(zip(problem.names, found, strict=True)))


def test_ops_that_differ_only_in_an_option_are_not_merged_by_compile() -> None:
    x = PROBLEMS["attention_dense"].differentiable
    x_linear = PROBLEMS["linear"].differentiable

    def both(*inputs: mx.array) -> list[mx.array]:
        attention = [ops.masked_attention(*inputs[:3], scale=s) for s in (0.1, 2.0)]
        return attention + [ops.linear(*inputs[3:], activation=a) for a in (None, "gelu")]

    plain, compiled = both(*x, *x_linear), mx.compile(both)(*x, *x_linear)
    for one, other in zip(plain, compiled, strict=True):
        assert mx.array_equal(one, other)
    assert not mx.allclose(compiled[0], compiled[1])
    assert not mx.allclose(compiled[2], compiled[3])


@every_op
def test_checkpoint(problem: AnyProblem) -> None:
    every = tuple(range(len(problem.differentiable)))
    gradients = mx.grad(mx.checkpoint(loss_of(problem)), argnums=every)(*problem.differentiable)
    check_results(problem, dict(zip(problem.names[1:], gradients, strict=True)))


@every_op
def test_jvp_says_plainly_that_it_is_not_there(problem: AnyProblem) -> None:
    inputs = list(problem.differentiable)
    ops_by_output = {
        "o": "masked_attention",
        "x": "positional_embedding",
        "y": "linear",
        "turned": "rotary",
    }
    op = ops_by_output.get(problem.names[0], "layer_norm")
    with pytest.raises(ValueError, match=rf"^\[{op}\] .*jvp.*\.$"):
        mx.eval(mx.jvp(lambda *x: problem.call(ops, *x), inputs, inputs))


@pytest.mark.parametrize("name", [name for name in PROBLEMS if not name.startswith("rotary")])
def test_a_second_derivative_is_refused(name: str) -> None:
    problem = PROBLEMS[name]

    def slope(x: mx.array) -> mx.array:
        rest = problem.differentiable[1:]
        gradient = mx.grad(lambda y: mx.square(problem.call(ops, y, *rest)).sum())
        total: mx.array = gradient(x).sum()
        return total

    with pytest.raises(ValueError, match=r"^\[\w+\] .*second derivative.*\.$"):
        mx.eval(mx.grad(slope)(problem.differentiable[0]))
