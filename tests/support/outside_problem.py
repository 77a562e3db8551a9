"""A problem of positional_embedding that the check at its call would refuse."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import mlx.core as mx
import numpy as np
import rounding
import truth
from closeness import as_numpy
from numpy.typing import NDArray
from problems import EmbeddingProblem
from truth import Array

from mlx_esm_kernels import _ext

_MARK = 1000.0  # in the place of NaN, which closeness takes for an error


@mx.custom_function
def _nan_as_mark(x: mx.array) -> mx.array:
    return mx.where(mx.isnan(x), mx.array(_MARK, x.dtype), x)


@_nan_as_mark.vjp
def _dx_as_it_is(primals: Any, cotangent: mx.array, output: Any) -> mx.array:
    return cotangent


@dataclass(frozen=True)
class OutsideProblem(EmbeddingProblem):
    """Tokens before and beyond the table, and segments of more tokens than it has positions.

    Metal kernels make such a row NaN, here a mark, and leave it out of both gradients. P is
    `positions`; token dropout is none.
    """

    outside_rate: float = 0.1

    def _make(self) -> dict[str, mx.array | None]:
        assert self.positions is not None
        assert self.mask_idx is None
        inside = replace(self, positions=self.shape[1] + self.padding_idx + 1)
        arrays = EmbeddingProblem._make(inside)
        rng = np.random.default_rng(self.seed + 1)
        tokens = np.array(arrays["tokens"])
        outside = rng.random(tokens.shape) < self.outside_rate
        values = rng.choice([-1, -(2**31), self.vocabulary, 2**31 - 1], tokens.shape)
        arrays["tokens"] = mx.array(np.where(outside, values, tokens).astype(np.int32))
        arrays["position_table"] = arrays["position_table"][: self.positions]
        return arrays

    @cached_property
    def outside(self) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
        """(B, L): whose token is in no table, and whose place, padding apart."""
        tokens, ids = np.array(self.tokens), self.segment_ids
        rows = truth.position_rows(
            tokens,
            padding_idx=self.padding_idx,
            segment_ids=None if ids is None else as_numpy(ids),
        )
        counts = rows > self.padding_idx
        return counts & self._unknown, counts & (rows >= self.positions)

    @property
    def _unknown(self) -> NDArray[np.bool_]:
        tokens = np.array(self.tokens)
        return (tokens < 0) | (tokens >= self.vocabulary)

    @property
    def _rows_outside(self) -> NDArray[np.bool_]:
        token, place = self.outside
        return (token | place)[..., None]

    def call(self, module: Any, *differentiable: mx.array, **options: Any) -> mx.array:
        if module is not _ext:
            x = self._inside.call(module, *differentiable, **options)
            return mx.where(mx.array(self._rows_outside), mx.array(_MARK, x.dtype), x)

        names = [name for name in ("tokens", "segment_ids") if name in self.arrays]

        def of_row(*row: mx.array) -> mx.array:
            given = {name: x[None] for name, x in zip(names, row, strict=True)}
            return EmbeddingProblem.call(self, module, *differentiable, **given, **options)[0]

        # mx.vmap hides the values from the check at the call.
        return _nan_as_mark(mx.vmap(of_row)(*(self.arrays[name] for name in names)))

    @cached_property
    def _inside(self) -> EmbeddingProblem:
        """The same with ordinary tokens there, padding where the place is outside; no dx there."""
        place = self.outside[1]
        tokens = np.where(self._unknown, 0 if self.padding_idx else 1, np.array(self.tokens))
        dx = np.where(self._rows_outside, 0, as_numpy(self.cotangent))
        plain = EmbeddingProblem(self.shape, self.dtype, self.vocabulary, self.padding_idx)
        return plain.with_arrays(
            **self.arrays
            | {
                "tokens": mx.array(np.where(place, self.padding_idx, tokens)),
                "dx": mx.array(dx).astype(self.cotangent.dtype),
            }
        )

    def clean(self) -> OutsideProblem:
        return self.with_arrays(dx=self._inside.cotangent)

    def answers(self) -> tuple[dict[str, Array], dict[str, Array]]:
        true, unit = self._inside.answers()
        true["x"] = np.where(self._rows_outside, _MARK, true["x"])
        unit["x"] = np.where(self._rows_outside, rounding.EPS[self.dtype] * _MARK, unit["x"])
        return true, unit
