"""Rotary positions of ESM-2: queries and keys are turned by angles that count within a protein.

Su et al. 2021, "RoFormer", and fair-esm's `rotary_embedding.py`: with halves a, b of a head's D
numbers, `[a, b] -> [a cos - b sin, b cos + a sin]`, by the angle `p 10000^(-2 i / D)` of position p
and place i < D / 2. Only differences of positions matter to attention.
"""

from __future__ import annotations

import mlx.core as mx

BASE = 10_000.0


def rotary_angles(segment_ids: mx.array, dim: int) -> tuple[mx.array, mx.array]:
    """Cosines and sines of the angles of every token, whose positions restart in each run of ids.

    Args:
        segment_ids: (B, L) integer, 0 = padding.
        dim: D, even.

    Returns:
        Two of (B, 1, L, D / 2) float32: that of a protein does not depend on what is beside it,
        nor on the dtype of the model.
    """
    length = segment_ids.shape[1]
    column = mx.arange(length, dtype=mx.int32)[None]
    before = mx.concatenate([segment_ids[:, :1], segment_ids[:, :-1]], axis=1)
    starts = mx.cummax(mx.where(segment_ids != before, column, 0), axis=1)
    frequencies = BASE ** (mx.arange(0, dim, 2, dtype=mx.float32) / -dim)
    angles = (column - starts).astype(mx.float32)[..., None] * frequencies  # (B, L, D / 2)
    return mx.cos(angles)[:, None], mx.sin(angles)[:, None]


def rotate(x: mx.array, angles: tuple[mx.array, mx.array]) -> mx.array:
    """x (B, H, L, D) turned by `rotary_angles`, computed in float32, in the dtype of x."""
    cos, sin = angles
    a, b = mx.split(x.astype(mx.float32), 2, axis=-1)
    return mx.concatenate([a * cos - b * sin, b * cos + a * sin], axis=-1).astype(x.dtype)
