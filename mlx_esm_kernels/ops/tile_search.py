"""Finds the fastest tiles of the attention kernels on the machine at hand."""

from __future__ import annotations

from collections.abc import Callable

import mlx.core as mx

from .. import _ext
from . import self_test, tiles
from .device_cache import log

StreamLike = mx.Stream | mx.Device | None
Seconds = Callable[[str], float]
# Fields of a kernel's tiles that are tried together: rows and staged rows; eights of rows of a
# simdgroup; whether keys are held; whether loads are fenced. All of them at once would be 72.
_CHOICES = ((0, 1), (2,), (3,), (4,))


def search(
    head_dim: int, dtype: mx.Dtype, seconds: Seconds, stream: StreamLike = None
) -> dict[str, tiles.Tiles]:
    """Find each kernel's fastest tiles that are right here, keep them, put them in force.

    From the built-in tiles on, one choice after another is settled by what is fastest. A kernel for
    which no candidate is right goes back to the built-in table.

    Args:
        head_dim: D.
        dtype: of q, k and v.
        seconds: given "fwd", "bwd_dq" or "bwd_dkv", runs that kernel with the tiles in force, and
            says how long it took.
        stream: where the candidates are tested.

    Returns:
        What is in force of each kernel for which there is something.
    """
    self_test.attention_passes(head_dim, dtype, stream)  # a first use puts kept tiles in force
    best: dict[str, tiles.Tiles] = {}
    for kernel in tiles.KERNELS:
        found = _fastest(kernel, head_dim, dtype, seconds, stream)
        if found:
            best[kernel] = found
        _ext.set_attention_tiles(kernel, head_dim, dtype, found)
    tiles.keep(head_dim, dtype, best)
    return best


def _fastest(
    kernel: str, head_dim: int, dtype: mx.Dtype, seconds: Seconds, stream: StreamLike
) -> tiles.Tiles | None:
    """None where no candidate that was tried is right."""
    _ext.set_attention_tiles(kernel, head_dim, dtype, None)
    current = _ext.attention_tiles(kernel, head_dim, dtype)
    candidates = _ext.attention_tile_candidates(kernel, head_dim, dtype)
    times: dict[tiles.Tiles, float] = {}
    tried: set[tiles.Tiles] = set()
    for fields in _CHOICES:
        for candidate in candidates:
            if candidate in tried or _without(candidate, fields) != _without(current, fields):
                continue
            tried.add(candidate)
            _ext.set_attention_tiles(kernel, head_dim, dtype, candidate)
            problem = self_test.attention_problem(head_dim, dtype, stream)
            if problem:
                log.warning(
                    "%s, D=%d: tiles %s are left out, as %s", kernel, head_dim, candidate, problem
                )
            else:
                times[candidate] = seconds(kernel)
        if times:
            current = min(times, key=times.__getitem__)
    return current if times else None


def _without(candidate: tiles.Tiles, fields: tuple[int, ...]) -> tuple[int | bool, ...]:
    return tuple(value for i, value in enumerate(candidate) if i not in fields)
