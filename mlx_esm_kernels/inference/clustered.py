"""Means over targets, and how far they are known: targets of one protein are not independent.

The mean over all targets is a ratio of sums over proteins, L = sum_p s_p / sum_p n_p. Its standard
error is that of a ratio estimator (Cochran 1977, "Sampling Techniques", section 6.5; the sandwich
of a regression on a constant, clustered by protein):

    se(L)^2 = P / (P - 1) sum_p (s_p - L n_p)^2 / (sum_p n_p)^2

It says how far L would differ on as many other proteins of the same kind. It takes proteins to be
independent, so among close relatives it is too small, and of a few proteins it is a rough guess.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

_Floats = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Mean:
    """A mean over targets.

    Attributes:
        value: the mean.
        error: its standard error; None where all targets are of one protein.
    """

    value: float
    error: float | None


def clustered_mean(values: _Floats, owners: npt.NDArray[np.int64]) -> Mean:
    """The mean of (T,) values, T at least 1, with its standard error clustered by (T,) owners."""
    counts = np.bincount(owners)
    sums = np.bincount(owners, weights=values)
    there = counts > 0
    counts, sums = counts[there], sums[there]
    mean = float(sums.sum() / counts.sum())
    clusters = len(counts)
    if clusters < 2:
        return Mean(mean, None)
    squares = float(((sums - mean * counts) ** 2).sum())
    error = math.sqrt(clusters / (clusters - 1) * squares) / float(counts.sum())
    return Mean(mean, error)
