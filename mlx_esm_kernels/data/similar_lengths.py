"""Random subsets of proteins that are about as long as others, as a measure of chance."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

# A protein stands in for one of another length if it is at most this share of all away from it in
# the order of lengths; in few proteins at most twice as many as are drawn.
_NEARBY = 0.02


class SimilarLengths:
    """Draws of different proteins with about wanted lengths.

    Args:
        lengths: (N,) of the proteins to draw from.
        wanted: (M,) lengths; where they are more than `most` as many of them, evenly.
        most: proteins in a draw, at most N.
    """

    def __init__(
        self,
        lengths: npt.NDArray[np.integer[Any]],
        wanted: npt.NDArray[np.integer[Any]],
        most: int,
    ) -> None:
        self._order = np.argsort(lengths, kind="stable")
        self.size = min(len(wanted), most)
        evenly = np.linspace(0, len(wanted) - 1, self.size).round().astype(np.int64)
        # Those of one length are spread over all that have it.
        in_order = lengths[self._order]
        picked = np.sort(wanted)[evenly]
        first, end = (np.searchsorted(in_order, picked, side=side) for side in ("left", "right"))
        self._first, self._end = first.astype(np.int64), end.astype(np.int64)
        self._reach = max(round(_NEARBY * len(lengths)), 2 * self._most_alike())

    def draw(self, rng: np.random.Generator) -> npt.NDArray[np.int64]:
        """(size,) places of different proteins, in random order."""
        count = len(self._order)
        low = np.maximum(self._first - self._reach, 0)
        high = np.minimum(self._end + self._reach, count)
        ranks = np.sort(rng.integers(low, np.maximum(high, low + 1)))
        # Two that fell on the same protein move apart, first upwards, then back from the end.
        steps = np.arange(self.size)
        ranks = np.maximum.accumulate(ranks - steps) + steps
        ranks = np.minimum(ranks, count - self.size + steps)
        return rng.permutation(self._order[ranks])

    def _most_alike(self) -> int:
        """How many of the wanted lengths have the same place in the order."""
        return int(np.unique(self._first, return_counts=True)[1].max(initial=1))
