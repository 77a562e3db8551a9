"""The learning rate of each step."""

from __future__ import annotations


def learning_rate(peak: float, step: int, warmup: int, done: float) -> float:
    """The rate of a step: linear increase over `warmup` steps, times linear decay to 0.

    Args:
        peak: the highest rate.
        step: steps taken so far, from 0.
        warmup: steps of increase.
        done: the share of the run that is over, from 0 to 1.
    """
    rise = min(1.0, (step + 1) / warmup) if warmup else 1.0
    return peak * rise * max(0.0, 1 - done)
