"""Finds the fastest tiles of the attention kernels on the machine at hand."""

from __future__ import annotations

from collections.abc import Callable

import mlx.core as mx

from .. import _ext
from . import self_test, tiles
from .device_cache import log


def search(
    head_dim: int,
    dtype: mx.Dtype,
    seconds: Callable[[str], float],
    stream: mx.Stream | mx.Device | None = None,
) -> tiles.Tiles:
    """Time every candidate that is right here, keep the fastest of each kernel, put it in force.

    A kernel for which no candidate is right goes back to the built-in table.

    Args:
        head_dim: D.
        dtype: of q, k and v.
        seconds: given "fwd", "bwd_dq" or "bwd_dkv", runs that kernel with the tiles in force, and
            says how long it took.
        stream: where the candidates are tested.

    Returns:
        (rows that a threadgroup owns, rows that it stages at a time) of each kernel.
    """
    self_test.attention_passes(head_dim, dtype, stream)  # a first use puts kept tiles in force
    best: tiles.Tiles = {}
    for kernel in tiles.KERNELS:
        times = {}
        for pair in _ext.attention_tile_candidates(kernel, head_dim, dtype):
            _ext.set_attention_tiles(kernel, head_dim, dtype, pair)
            problem = self_test.attention_problem(head_dim, dtype, stream)
            if problem:
                log.warning(
                    "%s, D=%d: tiles %s are left out, as %s", kernel, head_dim, pair, problem
                )
            else:
                times[pair] = seconds(kernel)
        if times:
            best[kernel] = min(times, key=times.__getitem__)
        _ext.set_attention_tiles(kernel, head_dim, dtype, best.get(kernel))
    tiles.keep(head_dim, dtype, best)
    return best
