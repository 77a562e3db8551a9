"""A problem of rotary, as those of problems.py."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import mlx.core as mx
import numpy as np
import rounding
import truth
from arrays import arrange
from closeness import as_numpy
from problems import ArraysByName
from truth import Array


@dataclass(frozen=True)
class RotaryProblem(ArraysByName):
    """rotary of (B, H, L, D) by angles (B, L, D) of any numbers, or of cosines and sines."""

    shape: tuple[int, int, int, int]
    dtype: str = "float32"
    on_circle: bool = True
    layouts: tuple[str, ...] = ("contiguous",) * 3  # of x, angles, dy
    seed: int = 0
    names: tuple[str, ...] = field(default=("turned", "dx", "dangles"), init=False, repr=False)

    def _make(self) -> dict[str, mx.array | None]:
        rng = np.random.default_rng(self.seed)
        batch, _, length, dim = self.shape
        angles = rng.standard_normal((batch, length, dim))
        if self.on_circle:
            turn = 100 * angles[..., : dim // 2]
            angles = np.concatenate([np.cos(turn), np.sin(turn)], axis=-1)
        dtypes = (self.dtype, "float32", self.dtype)
        values = (rng.standard_normal(self.shape), angles, rng.standard_normal(self.shape))
        return {
            name: arrange(x, layout, dtype)
            for name, x, layout, dtype in zip(
                ("x", "angles", "dturned"), values, self.layouts, dtypes, strict=True
            )
        }

    @property
    def differentiable(self) -> tuple[mx.array, ...]:
        return (self.arrays["x"], self.arrays["angles"])

    @property
    def cotangent(self) -> mx.array:
        return self.arrays["dturned"]

    def call(self, module: Any, *differentiable: mx.array, **options: Any) -> mx.array:
        y: mx.array = module.rotary(*differentiable, **options)
        return y

    def clean(self) -> RotaryProblem:
        return self

    def answers(self) -> tuple[dict[str, Array], dict[str, Array]]:
        x, angles, dy = (as_numpy(self.arrays[name]) for name in ("x", "angles", "dturned"))
        true = {"turned": truth.rotary(x, angles)} | truth.rotary_gradients(dy, x, angles)
        unit = rounding.rotary(dy, x, angles, dtype=self.dtype)
        return true, {"turned": unit.pop("y")} | unit
