"""Copies of a large array: what the machine's memory carries, as a yardstick of ops that move."""

from __future__ import annotations

from collections.abc import Callable

import mlx.core as mx
import numpy as np

from .command import Options, Row
from .measuring import Run, alternate, installed

COPY_BYTES = 1 << 27  # out of every cache


def copy_runs(device: str) -> dict[str, Run]:
    """Copies by what does them; each moves 2 COPY_BYTES."""
    if device == "gpu":
        a = mx.ones((COPY_BYTES // 4,))
        return {"MLX's negation of an array": lambda: mx.eval(-a)}
    source, target = np.ones(COPY_BYTES // 4, np.float32), np.zeros(COPY_BYTES // 4, np.float32)
    runs: dict[str, Run] = {"numpy's copy, one core": lambda: np.copyto(target, source)}
    if installed("torch"):
        import torch

        x, y = torch.from_numpy(source), torch.from_numpy(target)
        runs["torch's copy"] = lambda: y.copy_(x)
    return runs


def rows_beside_copies(
    ways: dict[str, dict[str, Run]],
    useful_bytes: Callable[[str], int],
    about: Row,
    options: Options,
) -> list[Row]:
    """A row for each direction and way, timed in turns with the copies.

    Args:
        ways: of each way, a function for each direction.
        useful_bytes: what the work of a direction has to read and write.
        about: shape, lengths and fill of every row.
        options: of the benchmark.
    """
    copied = copy_runs(options.device)
    rows = []
    for direction in next(iter(ways.values())):
        runs = {way: both[direction] for way, both in ways.items()}
        found = alternate({**runs, **copied}, repeats=options.repeats)
        copy = min(copied, key=lambda name: found[name].seconds)
        rate = 2 * COPY_BYTES / found[copy].seconds
        for way in ways:
            row: Row = {**about, "way": way, "direction": direction, "seconds": found[way].seconds}
            moved = useful_bytes(direction) / found[way].seconds
            row |= {"rate": 1e-9 * moved, "unit": "GB/s", "share": moved / rate}
            row["yardstick"] = f"what {copy} reads and writes, {1e-9 * rate:.1f} billion bytes/s"
            row["peak_bytes"] = None if way == "torch" else found[way].peak_bytes
            rows.append(row)
    return rows
