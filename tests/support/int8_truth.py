"""int8_linear in numpy: the same rounding of x, the sums in int64, the rest in float64."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]


def quantised(x: Array) -> tuple[Array, Array]:
    """Rows of float32 as whole numbers of -127 ... 127, and what a unit of each is worth."""
    x = x.astype(np.float32)
    largest = np.abs(x).max(axis=-1, keepdims=True)
    nothing = largest < np.float32(2.0**-100)
    with np.errstate(all="ignore"):
        units = np.float32(127) / largest
        q = np.rint(x * units)
    bad = ~np.isfinite(largest)
    q = np.where(nothing | bad, 0, q)
    scale = np.where(bad, np.float32(np.nan), np.where(nothing, 0, largest / np.float32(127)))
    return q.astype(np.int64), scale


def int8_linear(
    x: Array,
    weight: Array,
    scale: Array,
    bias: Array | None = None,
    activation: str | None = None,
    residual: Array | None = None,
) -> Array:
    """y (M, O) in float64 of x (M, I); all as numpy arrays."""
    q, row_scale = quantised(x)
    h = (q @ weight.astype(np.int64).T) * row_scale.astype(np.float64) * scale.astype(np.float64)
    if bias is not None:
        h = h + bias.astype(np.float64)
    if activation == "gelu":
        h = h * 0.5 * np.vectorize(math.erfc, otypes=[np.float64])(-h / math.sqrt(2))
    return h if residual is None else h + residual.astype(np.float64)
