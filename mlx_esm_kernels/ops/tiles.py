"""Tiles that were the fastest on this machine, in place of the built-in table."""

from __future__ import annotations

from typing import Any

import mlx.core as mx

from .. import _ext
from . import device_cache

KERNELS = ("fwd", "bwd_dq", "bwd_dkv")
# Rows a threadgroup owns, rows it stages at a time, eights of rows of a simdgroup, whether bwd_dkv
# holds its keys in registers, whether loads of fragments are fenced.
Tiles = tuple[int, int, int, bool, bool]


def load(head_dim: int, dtype: mx.Dtype) -> None:
    """Put the tiles that `keep` kept for this machine and source in force, if there are any."""
    kept = device_cache.read("tiles", _key(head_dim, dtype))
    found = kept.get("tiles") if kept else None
    if not isinstance(found, dict):
        return
    for kernel in KERNELS:
        tiles = found.get(kernel)
        candidates = _ext.attention_tile_candidates(kernel, head_dim, dtype)
        if isinstance(tiles, list) and tuple(tiles) in candidates:
            _ext.set_attention_tiles(kernel, head_dim, dtype, tuple(tiles))
            device_cache.log.debug("%s, D=%d: tiles %s, tuned here", kernel, head_dim, tiles)


def keep(head_dim: int, dtype: mx.Dtype, tiles: dict[str, Tiles]) -> None:
    """Keep the tiles of each kernel for later processes, and put them in force in this one.

    Args:
        head_dim: D.
        dtype: of q, k and v.
        tiles: of each of KERNELS that has some.
    """
    device_cache.write("tiles", _key(head_dim, dtype), {"tiles": tiles})
    for kernel, of_kernel in tiles.items():
        _ext.set_attention_tiles(kernel, head_dim, dtype, of_kernel)


def _key(head_dim: int, dtype: mx.Dtype) -> dict[str, Any]:
    # The sources hold their tiles; the key is that of the built-in ones, whatever is in force.
    for kernel in KERNELS:
        _ext.set_attention_tiles(kernel, head_dim, dtype, None)
    sources = _ext.attention_sources(head_dim, dtype)
    return {
        "head_dim": head_dim,
        "dtype": str(dtype),
        **device_cache.circumstances(sources),
    }
