"""What an infinity in one protein does to those that are packed beside it: nothing."""

from __future__ import annotations

from collections.abc import Sequence

import mlx.core as mx
import numpy as np
from problems import AttentionProblem, results

from mlx_esm_kernels import _ext

INPUTS = ("q", "k", "v", "do")


def changed_neighbours(problem: AttentionProblem, names: Sequence[str] = INPUTS) -> list[str]:
    """Results whose bits change in other segments where one segment holds no numbers.

    Args:
        problem: packed, with two segments or more.
        names: of the inputs in which the segment with the largest id holds infinity and NaN.

    Returns:
        "dk of infinite v", for each result and each input in turn.
    """
    ids = np.array(problem.arrays["segment_ids"])
    others = (ids != 0) & (ids != ids.max())
    clean = results(problem, _ext)
    found = []
    for name in names:
        values = np.array(problem.arrays[name].astype(mx.float32))
        rows = np.broadcast_to((ids == ids.max())[:, None, :], values.shape[:3])
        values[rows, 0], values[rows, 1] = np.inf, np.nan
        infinite = mx.array(values).astype(problem.arrays[name].dtype)
        dirty = results(problem.with_arrays(**{name: infinite}), _ext)
        for result in ("o", "dq", "dk", "dv"):
            pair = [np.array(x[result].astype(mx.float32)) for x in (clean, dirty)]
            same = [x.swapaxes(1, 2)[others] for x in pair]
            if not np.array_equal(*same):
                found.append(f"{result} of infinite {name}")
    return found
