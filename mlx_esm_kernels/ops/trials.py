"""Attention of ours and of MLX's ops timed beside each other, in a few calls of everyday shapes."""

from __future__ import annotations

import itertools
import statistics
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import mlx.core as mx
import numpy as np

from .. import _ext

FORWARD, BOTH = "forward", "forward+backward"
_LENGTHS = (317, 204, 143, 428, 96, 251, 380, 62)  # of proteins, with cls and eos
_REPEATS, _ENOUGH_S = 5, 2.0


@dataclass(frozen=True)
class Trial:
    """A call to time: (B, H, L, D), and the lengths of the segments of each row; None: dense."""

    shape: tuple[int, int, int, int]
    lengths: str  # dense, padded or packed
    segments: list[list[int]] | None


def trials(on_gpu: bool) -> list[Trial]:
    """The six everyday calls, and a long one, which a GPU is given in several launches."""
    b, h, length = (4, 20, 1024) if on_gpu else (2, 8, 256)
    long = (1, 20, 4096, 64) if on_gpu else (1, 4, 1536, 64)
    found = [
        _trial((b, h, length, 64), "dense"),
        _trial((b, h, length, 64), "padded"),
        _trial((b, h, length, 64), "packed"),
        _trial((b, h, length, 32), "packed"),
        _trial((b, h, length, 16), "dense"),
        _trial((b, h, length, 16), "packed"),
    ]
    return [*found, _trial(long, "dense")]


def _trial(shape: tuple[int, int, int, int], lengths: str) -> Trial:
    batch, _, length, _ = shape
    if lengths == "dense":
        return Trial(shape, lengths, None)
    proteins = itertools.cycle(min(n * length // 428, length) for n in _LENGTHS)
    if lengths == "padded":
        return Trial(shape, lengths, [[next(proteins)] for _ in range(batch)])
    rows: list[list[int]] = []
    pieces = itertools.cycle(max(n * length // 1024, 1) for n in _LENGTHS)
    for _ in range(batch):
        row: list[int] = []
        while sum(row) + (piece := next(pieces)) <= length:
            row.append(piece)
        rows.append(row)
    return Trial(shape, lengths, rows)


def timed(trial: Trial) -> Iterator[dict[str, Any]]:
    """A row of a report for each direction, in float32: the medians of ours and of MLX's."""
    q, k, v, do = (mx.random.normal(trial.shape, key=mx.random.key(i)) for i in range(4))
    ids = None if trial.segments is None else _ids(trial)
    mx.eval(q, k, v, do, [] if ids is None else ids)

    def runs(fused: bool) -> dict[str, Callable[[], Any]]:
        def forward(*x: mx.array) -> mx.array:
            return _ext.masked_attention(*x, segment_ids=ids, fused=fused)

        return {
            FORWARD: lambda: mx.eval(forward(q, k, v)),
            BOTH: lambda: mx.eval(mx.vjp(forward, [q, k, v], [do])),
        }

    ours, mlx = runs(True), runs(False)
    for direction in (FORWARD, BOTH):
        yield {
            "shape": list(trial.shape),
            "lengths": trial.lengths,
            "segments": trial.segments,
            "dtype": "float32",
            "direction": direction,
            **_medians({"ours": ours[direction], "mlx": mlx[direction]}),
        }


def _ids(trial: Trial) -> mx.array:
    batch, _, length, _ = trial.shape
    ids = np.zeros((batch, length), np.int32)
    for row, lengths in zip(ids, trial.segments or [], strict=True):
        filled = np.repeat(np.arange(len(lengths)) + 1, lengths)
        row[: len(filled)] = filled
    return mx.array(ids)


def _medians(runs: dict[str, Callable[[], Any]]) -> dict[str, float]:
    """Seconds of each, timed in turns after one call that is not."""
    taken: dict[str, list[float]] = {name: [] for name in runs}
    for run in runs.values():
        run()
    for _ in range(_REPEATS):
        for name, run in runs.items():
            if sum(taken[name]) < _ENOUGH_S:
                begun = time.perf_counter()
                run()
                taken[name].append(time.perf_counter() - begun)
    return {name: statistics.median(seconds) for name, seconds in taken.items()}
