"""Copies of a large array: what the machine's memory carries, as a yardstick of ops that move."""

from __future__ import annotations

import mlx.core as mx
import numpy as np

from .measuring import Run, installed

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
