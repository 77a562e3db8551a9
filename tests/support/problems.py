"""One problem of each op: inputs, a cotangent, and what is known about the answer.

A problem is made from a handful of plain numbers and words, so that hypothesis can shrink it and
a failure can be repeated from its printed form.
"""

from __future__ import annotations

from copy import copy
from dataclasses import dataclass, field, replace
from functools import cached_property
from types import SimpleNamespace
from typing import Any, Protocol, TypeVar

import mlx.core as mx
import numpy as np
import rounding
import truth
from arrays import arrange, poison, segment_ids
from closeness import as_numpy, assert_all_close
from numpy.typing import NDArray
from truth import Array

from mlx_esm_kernels import _ext, ops
from mlx_esm_kernels.models import reference


class Problem(Protocol):
    """What check() and the transformation tests need to know of a problem."""

    @property
    def arrays(self) -> dict[str, mx.array]:
        """Inputs and cotangent by name, without those that are None."""

    @property
    def names(self) -> tuple[str, ...]:
        """Of the output and of the gradients of the differentiable inputs."""

    @property
    def differentiable(self) -> tuple[mx.array, ...]:
        """The inputs that have a gradient, in the order of names[1:]."""

    @property
    def cotangent(self) -> mx.array:
        """Of the shape and dtype of the output, random."""

    def call(self, module: Any, *differentiable: mx.array, **options: Any) -> mx.array:
        """The op of that module (ops or reference) on these inputs and the fixed others."""

    def clean(self) -> Problem:
        """The same problem with ordinary numbers in its padded rows; the answer is the same."""

    def answers(self) -> tuple[dict[str, Array], dict[str, Array]]:
        """Float64 truth and unit of rounding of each of names."""


def lazy_results(problem: Problem, module: Any, **options: Any) -> dict[str, mx.array]:
    """The output and all gradients, not evaluated, keyed by the problem's names."""

    def forward(*inputs: mx.array) -> mx.array:
        return problem.call(module, *inputs, **options)

    outputs, gradients = mx.vjp(forward, list(problem.differentiable), [problem.cotangent])
    return dict(zip(problem.names, [*outputs, *gradients], strict=True))


def _layer_norm(x: mx.array, weight: mx.array, bias: mx.array, *, eps: float, **_: Any) -> mx.array:
    wide = [a.astype(mx.float32) for a in (x, weight, bias)]
    return mx.fast.layer_norm(*wide, eps).astype(x.dtype)


def _add_layer_norm(
    x: mx.array, delta: mx.array | None, *parameters: mx.array, eps: float
) -> tuple[mx.array, mx.array]:
    s = x if delta is None else x + delta
    return s, _layer_norm(s, *parameters, eps=eps)


# reference.py has no layer norm of its own: MLX's is plain MLX.
REFERENCE = SimpleNamespace(
    **vars(reference), layer_norm=_layer_norm, add_layer_norm=_add_layer_norm
)


def results(problem: Problem, module: Any, **options: Any) -> dict[str, mx.array]:
    """The output and all gradients, evaluated, keyed by the problem's names."""
    found = lazy_results(problem, module, **options)
    mx.eval(found)
    return found


def check(problem: Problem, **options: Any) -> None:
    """The op's output and all gradients against the reference and float64 numpy."""
    __tracebackhide__ = True
    if isinstance(problem, AttentionProblem) and _is_composed(problem):
        # MLX's own attention rounds scores to half precision; test_composed.py says how far.
        problem = replace(problem, dtype="float32")
    check_results(problem, results(problem, ops, **options))


def _is_composed(problem: AttentionProblem) -> bool:
    """Whether MLX's own ops serve it: on Metal, where our kernels do not take its head dim."""
    dtype = getattr(mx, problem.dtype)
    return _ext.runs_on_metal() and not _ext.attention_served(problem.shape[3], dtype)


def check_results(problem: Problem, actual: dict[str, mx.array]) -> None:
    """Some results of a problem, by name, against the reference and float64 numpy."""
    __tracebackhide__ = True
    expected = results(problem.clean(), REFERENCE)
    true, unit = problem.answers()
    assert_all_close(
        actual,
        {name: expected[name] for name in actual},
        {name: true[name] for name in actual},
        {name: unit[name] for name in actual},
    )


_Problem = TypeVar("_Problem", bound="ArraysByName")


class ArraysByName:
    """Arrays by name, made on first use by _make, with some possibly put in their place."""

    @cached_property
    def arrays(self) -> dict[str, mx.array]:
        return {name: x for name, x in self._make().items() if x is not None}

    def _make(self) -> dict[str, mx.array | None]:
        raise NotImplementedError

    def with_arrays(self: _Problem, **arrays: mx.array) -> _Problem:
        """The same problem on other arrays, which may be those of a transformation."""
        other = copy(self)
        other.__dict__["arrays"] = self.arrays | arrays
        return other


@dataclass(frozen=True)
class AttentionProblem(ArraysByName):
    """masked_attention on (B, H, L, D) normal q, k, v, do; scores of about score_size."""

    shape: tuple[int, int, int, int]
    dtype: str = "float32"
    segments: str = "none"
    ids_dtype: str = "int32"
    ids_layout: str = "contiguous"
    biases: bool = False
    scale: float | None = None
    score_size: float = 1.0
    poisoned: bool = False
    layouts: tuple[str, ...] = ("contiguous",) * 4  # of q, k, v, do
    seed: int = 0

    def _make(self) -> dict[str, mx.array | None]:
        rng = np.random.default_rng(self.seed)
        batch, heads, length, dim = self.shape
        ids = segment_ids(self.segments, (batch, length), self.ids_dtype, rng)
        scale = self.scale or dim**-0.5
        spread = (self.score_size / abs(scale)) ** 0.5 * dim**-0.25
        arrays: dict[str, mx.array | None] = {"segment_ids": None}
        for name, layout, std in zip(
            ("q", "k", "v", "do"), self.layouts, (spread, spread, 1, 1), strict=True
        ):
            values = std * rng.standard_normal(self.shape)
            # A broadcast row would carry one protein's padding into another's residues.
            if self.poisoned and ids is not None and layout not in ("broadcast", "constant"):
                values = poison(values, (ids == 0)[:, None, :, None])
            arrays[name] = arrange(values, layout, self.dtype)
        for name, std in (("bias_k", spread), ("bias_v", 1)):
            values = std * rng.standard_normal((heads, dim))
            arrays[name] = arrange(values, "contiguous", self.dtype) if self.biases else None
        if ids is not None:
            arrays["segment_ids"] = _arranged_ids(ids, self.ids_layout)
        return arrays

    @property
    def names(self) -> tuple[str, ...]:
        return ("o", "dq", "dk", "dv") + (("dbias_k", "dbias_v") if self.biases else ())

    @property
    def differentiable(self) -> tuple[mx.array, ...]:
        inputs = ("q", "k", "v") + (("bias_k", "bias_v") if self.biases else ())
        return tuple(self.arrays[name] for name in inputs)

    @property
    def cotangent(self) -> mx.array:
        return self.arrays["do"]

    @property
    def segment_ids(self) -> mx.array | None:
        return self.arrays.get("segment_ids")

    def call(self, module: Any, *differentiable: mx.array, **options: Any) -> mx.array:
        q, k, v, *biases = differentiable
        if biases:
            options |= {"bias_k": biases[0], "bias_v": biases[1]}
        options = {"scale": self.scale, "segment_ids": self.segment_ids} | options
        o: mx.array = module.masked_attention(q, k, v, **options)
        return o

    def clean(self) -> AttentionProblem:
        return replace(self, poisoned=False) if self.poisoned else self

    def answers(self) -> tuple[dict[str, Array], dict[str, Array]]:
        arrays = {name: as_numpy(x) for name, x in self.arrays.items()}
        do, q, k, v = (arrays.pop(name) for name in ("do", "q", "k", "v"))
        options: dict[str, Any] = arrays | {"scale": self.scale}
        true = {"o": truth.masked_attention(q, k, v, **options)}
        true |= truth.masked_attention_gradients(do, q, k, v, **options)
        return true, rounding.masked_attention(do, q, k, v, dtype=self.dtype, **options)


def _arranged_ids(ids: NDArray[Any], layout: str) -> mx.array:
    """Integer ids as a contiguous array or as every second column of a wider one."""
    if layout == "contiguous":
        return mx.array(ids)
    assert layout == "stepped"
    view = mx.array(np.repeat(ids, 2, axis=1))[:, ::2]
    mx.eval(view)
    return view


@dataclass(frozen=True)
class EmbeddingProblem(ArraysByName):
    """positional_embedding of (B, L) tokens from (V, C) and (P, C) tables.

    P is positions, or where None the smallest that serves the longest segment.
    """

    shape: tuple[int, int, int]  # B, L, C
    dtype: str = "float32"
    vocabulary: int = 33
    padding_idx: int = 1
    mask_idx: int | None = None
    mask_rate: float = 0.2
    padding_rate: float = 0.0
    tokens_dtype: str = "int32"
    segments: str = "none"
    ids_dtype: str = "int32"
    ids_layout: str = "contiguous"
    positions: int | None = None
    poisoned: bool = False
    layouts: tuple[str, ...] = ("contiguous",) * 3  # of the two tables and dx
    seed: int = 0
    names: tuple[str, ...] = field(
        default=("x", "dtoken_table", "dposition_table"), init=False, repr=False
    )

    def _make(self) -> dict[str, mx.array | None]:
        rng = np.random.default_rng(self.seed)
        batch, length, width = self.shape
        ids = segment_ids(self.segments, (batch, length), self.ids_dtype, rng)
        tokens = rng.integers(0, self.vocabulary, (batch, length))
        if self.mask_idx is not None:
            tokens[rng.random(tokens.shape) < self.mask_rate] = self.mask_idx
        tokens[rng.random(tokens.shape) < self.padding_rate] = self.padding_idx
        rows = truth.position_rows(tokens, padding_idx=self.padding_idx, segment_ids=ids)
        num_positions = self.positions or int(rows.max(initial=self.padding_idx)) + 1
        values = {
            "token_table": rng.standard_normal((self.vocabulary, width)),
            "position_table": rng.standard_normal((num_positions, width)),
            "dx": rng.standard_normal(self.shape),
        }
        if self.poisoned and self.layouts[2] not in ("broadcast", "constant"):
            values["dx"] = poison(values["dx"], (rows == self.padding_idx)[..., None])
        arrays: dict[str, mx.array | None] = {
            name: arrange(values[name], layout, self.dtype)
            for name, layout in zip(values, self.layouts, strict=True)
        }
        arrays["tokens"] = _arranged_ids(tokens.astype(self.tokens_dtype), self.ids_layout)
        arrays["segment_ids"] = None if ids is None else _arranged_ids(ids, self.ids_layout)
        return arrays

    @property
    def differentiable(self) -> tuple[mx.array, ...]:
        return (self.arrays["token_table"], self.arrays["position_table"])

    @property
    def cotangent(self) -> mx.array:
        return self.arrays["dx"]

    @property
    def tokens(self) -> mx.array:
        return self.arrays["tokens"]

    @property
    def segment_ids(self) -> mx.array | None:
        return self.arrays.get("segment_ids")

    def call(self, module: Any, *differentiable: mx.array, **options: Any) -> mx.array:
        fixed = {"padding_idx": self.padding_idx, "mask_idx": self.mask_idx}
        tokens = options.pop("tokens", self.tokens)
        options = fixed | {"segment_ids": self.segment_ids} | options
        x: mx.array = module.positional_embedding(tokens, *differentiable, **options)
        return x

    def clean(self) -> EmbeddingProblem:
        return replace(self, poisoned=False) if self.poisoned else self

    def answers(self) -> tuple[dict[str, Array], dict[str, Array]]:
        ids = self.segment_ids
        options: dict[str, Any] = {
            "padding_idx": self.padding_idx,
            "mask_idx": self.mask_idx,
            "segment_ids": None if ids is None else as_numpy(ids),
        }
        inputs = [as_numpy(self.arrays[n]) for n in ("tokens", "token_table", "position_table")]
        dx = as_numpy(self.cotangent)
        true = {"x": truth.positional_embedding(*inputs, **options)}
        true |= truth.positional_embedding_gradients(dx, *inputs, **options)
        dx = np.where(np.isfinite(dx), dx, 0)  # only padding is poisoned
        return true, rounding.positional_embedding(dx, *inputs, dtype=self.dtype, **options)


@dataclass(frozen=True)
class LinearProblem(ArraysByName):
    """linear of (..., I) by (O, I); pre-activations of about size."""

    rows: tuple[int, ...]
    features: tuple[int, int]  # I, O
    dtype: str = "float32"
    bias: bool = True
    activation: str | None = None
    residual: bool = False
    size: float = 1.0
    layouts: tuple[str, ...] = ("contiguous",) * 3  # of x, weight, dy
    wide_weight: bool = False  # the weight is float32, of numbers that the dtype has too
    seed: int = 0

    def _make(self) -> dict[str, mx.array | None]:
        rng = np.random.default_rng(self.seed)
        width_in, width_out = self.features
        values = {
            "x": rng.standard_normal((*self.rows, width_in)),
            "weight": rng.standard_normal((width_out, width_in)) * width_in**-0.5 * self.size,
            "dy": rng.standard_normal((*self.rows, width_out)),
        }
        arrays: dict[str, mx.array | None] = {
            name: arrange(values[name], layout, self.dtype)
            for name, layout in zip(values, self.layouts, strict=True)
        }
        if self.wide_weight:
            numbers = np.array(arrays["weight"].astype(mx.float32))
            arrays["weight"] = arrange(numbers, self.layouts[1], "float32")
        bias = rng.standard_normal(width_out) * self.size
        arrays["bias"] = arrange(bias, "contiguous", self.dtype)
        residual = rng.standard_normal((*self.rows, width_out))
        layout = self.layouts[0]
        arrays["residual"] = arrange(residual, layout, self.dtype) if self.residual else None
        return arrays

    @property
    def names(self) -> tuple[str, ...]:
        return ("y", *(f"d{name}" for name in self._inputs))

    @property
    def _inputs(self) -> tuple[str, ...]:
        bias, residual = ("bias",) * self.bias, ("residual",) * self.residual
        return ("x", "weight", *bias, *residual)

    @property
    def differentiable(self) -> tuple[mx.array, ...]:
        return tuple(self.arrays[name] for name in self._inputs)

    @property
    def cotangent(self) -> mx.array:
        return self.arrays["dy"]

    def call(self, module: Any, *differentiable: mx.array, **options: Any) -> mx.array:
        inputs, residual = differentiable, None
        if self.residual:
            *inputs, residual = differentiable
        if module is ops and self.residual:
            options |= {"residual": residual}
        y: mx.array = module.linear(*inputs, activation=self.activation, **options)
        return y if module is ops or residual is None else y + residual

    def clean(self) -> LinearProblem:
        return self

    def answers(self) -> tuple[dict[str, Array], dict[str, Array]]:
        inputs = [as_numpy(self.arrays[name]) for name in self._inputs if name != "residual"]
        dy = as_numpy(self.cotangent)
        true = {"y": truth.linear(*inputs, activation=self.activation)}
        true |= truth.linear_gradients(dy, *inputs, activation=self.activation)
        unit = rounding.linear(dy, *inputs, dtype=self.dtype, activation=self.activation)
        if self.residual:
            residual, eps = as_numpy(self.arrays["residual"]), rounding.EPS[self.dtype]
            true |= {"y": true["y"] + residual, "dresidual": dy}
            unit |= {"y": unit["y"] + eps * np.abs(residual), "dresidual": eps * np.abs(dy)}
        return true, unit
