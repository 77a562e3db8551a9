"""A stand-in for a Metal GPU: the CPU ops under its names, right or made wrong on purpose."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import mlx.core as mx
import pytest

from mlx_esm_kernels import _ext
from mlx_esm_kernels.ops import dispatch, self_test, timings

Change = Callable[[mx.array], mx.array]


def _nan_outside(op: Callable[..., mx.array]) -> Callable[..., mx.array]:
    """The embedding of a GPU, which raises nothing: what is in no table gives NaN."""

    def run(tokens: mx.array, *tables: mx.array, padding_idx: int, **options: Any) -> mx.array:
        token_table, positions = tables
        rows, ids = len(positions), options.get("segment_ids")
        real = tokens != padding_idx
        if ids is not None:
            real = real & (ids != 0)
        known = (tokens >= 0) & (tokens < len(token_table))
        ids = mx.ones_like(tokens) if ids is None else ids
        counted = mx.where(real, ids, 0)
        same = (counted[:, :, None] == counted[:, None, :]) & real[:, None, :]
        places = padding_idx + mx.tril(same.astype(mx.int32)).sum(axis=2)
        table = mx.pad(positions, ((0, tokens.shape[1]), (0, 0)))
        other = 1 if padding_idx == 0 else 0
        named = mx.where(known | ~real, tokens, other)
        x = op(named, token_table, table, padding_idx=padding_idx, **options)
        outside = real & (~known | (places >= rows))
        return mx.where(outside[..., None], mx.array(mx.nan, x.dtype), x)

    return run


class FakeMetal:
    """What the extension would say on a Mac; `calls` holds op and `fused` of every call.

    `change` is applied to what the kernels of ours give, and may raise.
    """

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.calls: list[tuple[str, bool]] = []
        self.change: Change | None = None
        self.chip: dict[str, Any] = {"name": "Apple M1", "architecture": "g13", "generation": 13}
        self.source = "kernel void fwd() {}"
        self.tiles: dict[str, tuple[int, int]] = {}
        ops = {
            "masked_attention": _ext.masked_attention,
            "positional_embedding": _nan_outside(_ext.positional_embedding),
            "rotary": _ext.rotary,
        }

        def op(name: str) -> Callable[..., mx.array]:
            def run(*inputs: mx.array, fused: bool, stream: Any = None, **options: Any) -> mx.array:
                self.calls.append((name, fused))
                out: mx.array = ops[name](*inputs, **options, stream=mx.cpu)
                return self.change(out) if fused and self.change else out

            return run

        fakes: dict[str, Any] = {name: op(name) for name in ops}
        fakes |= {
            "metal_chip": lambda: self.chip,
            "runs_on_metal": lambda stream: True,
            "attention_served": lambda head_dim, dtype: head_dim % 8 == 0 and head_dim <= 128,
            "attention_sources": lambda head_dim, dtype: [self.source, str(self.tiles)],
            "embedding_sources": lambda dtype: [self.source],
            "rotary_sources": lambda dtype: [self.source],
            "attention_tile_candidates": lambda kernel, head_dim, dtype: [(32, 32), (16, 64)],
            "attention_tiles": lambda kernel, head_dim, dtype: self.tiles.get(kernel, (32, 32)),
            "set_attention_tiles": self._set_tiles,
        }
        for name, fake in fakes.items():
            monkeypatch.setattr(_ext, name, fake, raising=False)
        monkeypatch.setattr(dispatch, "_default_choice", "auto")
        monkeypatch.setattr(self_test, "_mode", "auto")
        monkeypatch.setattr(self_test, "_verdicts", {})
        monkeypatch.setattr(timings, "_known", {})
        self._monkeypatch = monkeypatch

    def _set_tiles(
        self, kernel: str, head_dim: int, dtype: mx.Dtype, tiles: tuple[int, int] | None
    ) -> None:
        self.tiles.pop(kernel, None)
        if tiles:
            self.tiles[kernel] = tiles

    def new_process(self) -> None:
        """Forget what a process remembers; the cache folder stays."""
        self.calls.clear()
        self._monkeypatch.setattr(self_test, "_verdicts", {})
        self._monkeypatch.setattr(timings, "_known", {})


@pytest.fixture
def metal(monkeypatch: pytest.MonkeyPatch, tmp_path: Any) -> FakeMetal:
    """A fake Metal GPU and an empty cache folder."""
    monkeypatch.setenv("MLX_ESM_KERNELS_CACHE", str(tmp_path))
    return FakeMetal(monkeypatch)
