"""The angles by which rotary positions turn: a token's place in its segment, times frequencies."""

from __future__ import annotations

import functools

import mlx.core as mx
import numpy as np
import numpy.typing as npt

BASE = 10_000.0


def rotary_angles(
    segment_ids: mx.array, dim: int, base: float = BASE, rounded_to: mx.Dtype = mx.float32
) -> mx.array:
    """Cosines and sines of every token's angles, for `rotary`.

    The angle i of a token is ``p * base ** (-2 i / D)`` with p its place, from 0, in the run of
    equal ids that it is in (Su et al. 2021, RoFormer; fair-esm, esm/rotary_embedding.py). So a
    protein's angles do not depend on what is packed beside it, to the last bit.

    Args:
        segment_ids: ``(B, L)`` integer. A run of 0, which is padding, has angles like any other.
        dim: D of a head, even.
        base: of the frequencies ``base ** (-2 i / D)``.
        rounded_to: to which dtype the frequencies are rounded first, as in a model whose training
            has rounded them.

    Returns:
        ``(B, L, D)`` float32 whatever the model's dtype: D / 2 cosines, then D / 2 sines. Computed
        once, they serve the queries and keys of all layers.

    Raises:
        ValueError: segment_ids are not (B, L), or dim is not even and above 0.
    """
    if segment_ids.ndim != 2:
        raise ValueError(
            f"[rotary_angles] segment_ids must have shape (B, L); got {segment_ids.shape}."
        )
    if dim < 2 or dim % 2:
        raise ValueError(f"[rotary_angles] dim must be even and at least 2; got {dim}.")
    column = mx.arange(segment_ids.shape[1], dtype=mx.int32)[None]
    before = mx.concatenate([segment_ids[:, :1], segment_ids[:, :-1]], axis=1)
    starts = mx.cummax(mx.where(segment_ids != before, column, 0), axis=1)
    places = (column - starts).astype(mx.float32)
    angles = places[..., None] * rotary_frequencies(dim, base, rounded_to)  # (B, L, D / 2)
    return mx.concatenate([mx.cos(angles), mx.sin(angles)], axis=-1)


def rotary_frequencies(dim: int, base: float = BASE, rounded_to: mx.Dtype = mx.float32) -> mx.array:
    """(D / 2,) float32: the angles of place 1; arguments as in `rotary_angles`."""
    return mx.array(_frequencies(dim, base)).astype(rounded_to).astype(mx.float32)


@functools.lru_cache(maxsize=8)
def _frequencies(dim: int, base: float) -> npt.NDArray[np.float32]:
    """(D / 2,): 1 / base^(2 i / D), each step rounded to float32.

    So PyTorch makes the buffer `inv_freq`. 34,350 residues from the start, as titin has, a last bit
    of a frequency is a thousandth of an angle.
    """
    exponents = np.arange(0, dim, 2, dtype=np.float32) / np.float32(dim)
    powers = (base ** exponents.astype(np.float64)).astype(np.float32)
    frequencies: npt.NDArray[np.float32] = np.float32(1) / powers
    return frequencies
