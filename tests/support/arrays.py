"""Arrays to test with: the same values in many memory layouts, and segment ids of many shapes."""

from __future__ import annotations

from typing import Any

import mlx.core as mx
import numpy as np
from numpy.typing import NDArray
from truth import Array

DTYPES = ("float32", "float16", "bfloat16")

# The last axis is contiguous in the first row: what the ops read in place.
LAYOUTS = (
    *("contiguous", "permuted", "stepped", "offset", "broadcast", "reversed"),
    *("last_transposed", "last_stepped", "last_reversed"),
)

ID_DTYPES = ("int32", "int64", "uint8", "bool")
SEGMENT_PATTERNS = (
    *("none", "one", "tail_padding", "runs", "holes", "interleaved", "all_padding", "arbitrary"),
    "some_rows_padding",
)
# Neighbours, extremes, and values that are equal, or 0, once cut to fewer bits.
_ARBITRARY_IDS = {
    "int32": (0, 1, -1, 2, 256, 65536, 65537, 2**31 - 1, -(2**31)),
    "int64": (0, 1, -1, 2**32, 2**32 + 1, 2**40, 2**63 - 1, -(2**63), -(2**63) + 1),
    "uint8": (0, 1, 127, 128, 255),
    "bool": (0, 1),
}


def mlx_dtype(name: str) -> mx.Dtype:
    """float32, float16, bfloat16 as MLX types."""
    return {"float32": mx.float32, "float16": mx.float16, "bfloat16": mx.bfloat16}[name]


def arrange(values: Array, layout: str, dtype: str) -> mx.array:
    """An evaluated MLX array of these values, as a view whose strides the layout names.

    What lies between the viewed elements is NaN, so that a wrong stride shows. "broadcast"
    repeats the first entry of axis 0 instead of the given ones; "constant" repeats one value
    everywhere, which is what the gradient of a sum looks like.
    """
    view = _view(values, layout, mlx_dtype(dtype))
    mx.eval(view)
    assert view.shape == values.shape
    return view


def _view(values: Array, layout: str, dtype: mx.Dtype) -> mx.array:
    def stored(array: Array) -> mx.array:
        x = mx.array(np.ascontiguousarray(array, dtype=np.float32)).astype(dtype)
        mx.eval(x)
        return x

    if layout == "broadcast":
        return mx.broadcast_to(stored(values[:1]), values.shape)
    if layout == "constant":
        return mx.broadcast_to(stored(values.reshape(-1)[:1]), values.shape)
    if layout == "contiguous" or values.ndim < 2:
        return stored(values)
    if layout == "permuted":  # (B, L, H, D) in memory, seen as (B, H, L, D)
        order = list(range(values.ndim))
        order[-3:-1] = order[-3:-1][::-1]
        return stored(values.transpose(order)).transpose(order)
    if layout == "last_transposed":
        return stored(values.swapaxes(-1, -2)).swapaxes(-1, -2)
    parts = _parts(layout, values.ndim)
    room = [
        size if part == slice(None) else 2 * size + 3
        for part, size in zip(parts, values.shape, strict=True)
    ]
    # Where each part of the base array, cut to size, lies in it.
    places = [
        range(whole)[part][:size]
        for whole, part, size in zip(room, parts, values.shape, strict=True)
    ]
    base = np.full(room, np.nan, np.float32)
    base[np.ix_(*places)] = values
    return stored(base)[parts][tuple(slice(size) for size in values.shape)]


def _parts(layout: str, ndim: int) -> tuple[slice, ...]:
    """The slice of each axis of a larger array that the view is taken from."""
    whole, stepped, backwards = slice(None), slice(1, None, 2), slice(None, None, -1)
    last = {"last_stepped": stepped, "last_reversed": backwards, "offset": slice(2, None)}
    lead = {"stepped": stepped, "reversed": backwards}
    return (*[lead.get(layout, whole)] * (ndim - 1), last.get(layout, whole))


def segment_ids(
    pattern: str, shape: tuple[int, int], dtype: str, rng: np.random.Generator
) -> NDArray[Any] | None:
    """(B, L) ids of a pattern; None for "none". Rows differ, as in a batch."""
    batch, length = shape
    ids = np.ones(shape, np.int64)
    if pattern == "none":
        return None
    if pattern == "all_padding":
        ids[:] = 0
    elif pattern == "tail_padding":
        ids[np.arange(length) >= rng.integers(0, length + 1, (batch, 1))] = 0
    elif pattern == "runs":
        ids = 1 + np.sort(rng.integers(0, 1 + length // 10, shape), axis=1)
        ids[np.arange(length) >= rng.integers(length // 2, length + 1, (batch, 1))] = 0
    elif pattern == "holes":
        ids[rng.random(shape) < 0.3] = 0
    elif pattern == "interleaved":
        ids[:] = 1 + (np.arange(length) + np.arange(batch)[:, None]) % 3
    elif pattern == "arbitrary":
        ids = rng.choice(np.array(_ARBITRARY_IDS[dtype]), shape)
    elif pattern == "some_rows_padding":
        ids[rng.integers(batch)] = 0
    else:
        assert pattern == "one"
    return ids.astype(dtype)


def poison(values: Array, rows: NDArray[np.bool_]) -> Array:
    """values with NaN, infinity and -infinity in turn where rows, broadcast over them, is true."""
    bad = np.resize(np.array([np.nan, np.inf, -np.inf]), values.shape)
    return np.where(rows, bad, values)
