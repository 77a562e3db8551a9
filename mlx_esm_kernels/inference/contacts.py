"""The contacts of one protein, whole or in windows, some rows of the map at a time."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import mlx.core as mx
import numpy as np
import numpy.typing as npt

from ..models.esm1 import ESM1, predict_contact_rows
from .requirements import Long, require_finite, seen_at_once
from .windows import Window, tile

Ids = npt.NDArray[np.integer[Any]]
OnStep = Callable[[float], object]


def contact_rows(
    model: ESM1, ids: Ids, long: Long = "error", on_step: OnStep = lambda residues: None
) -> Iterator[mx.array]:
    """The contacts of one protein, in memory that grows with its length and not with the square.

    Args:
        model: with a contact regression.
        ids: (residues,), without cls and eos.
        long: what becomes of a long protein: see `Embedder`. It is not too long for the model.
        on_step: called with how many residues' worth of work was done since the last call.

    Yields:
        (n, residues) float32 probabilities, n rows after the other; all at once where there are few
        residues.

    Raises:
        UserError: the model has no contact regression, or gives NaN.
    """
    windows = tile(len(ids), seen_at_once(model.config, long))
    if len(windows) == 1:
        rows = _rows(model, ids, lambda share: on_step(share * len(ids)))
    else:
        rows = _rows_in_windows(model, ids, windows, on_step)
    for some in rows:
        require_finite(mx.isfinite(some).all(), model.embed_tokens.weight.dtype)
        yield some


def contact_map(model: ESM1, ids: Ids, long: Long = "error") -> mx.array:
    """(residues, residues) float32: the rows of `contact_rows`, together."""
    rows = list(contact_rows(model, ids, long))
    return mx.concatenate(rows) if len(rows) > 1 else rows[0]


def _rows(model: ESM1, ids: Ids, on_share: OnStep) -> Iterator[mx.array]:
    return predict_contact_rows(model, mx.array(model.alphabet.with_specials(ids)), on_share)


def _rows_in_windows(
    model: ESM1, ids: Ids, windows: Sequence[Window], on_step: OnStep
) -> Iterator[mx.array]:
    """A pair has the mean of the windows that see both residues, and 0 where none does."""
    seen: list[tuple[Window, npt.NDArray[np.float32]]] = []
    ends = [*(window.start for window in windows[1:]), len(ids)]
    for newest, end in zip(windows, ends, strict=True):
        # No later window sees the rows from here to the start of the next one.
        start = newest.start
        new = end - start  # as a default below, since it is another one in each round

        def on_share(share: float, new: int = new) -> None:
            on_step(share * new)

        parts = [np.array(rows) for rows in _rows(model, ids[start : newest.end], on_share)]
        seen = [(window, part) for window, part in seen if window.end > start]
        seen.append((newest, np.concatenate(parts)))
        sums = np.zeros((end - start, len(ids)), np.float32)
        counts = np.zeros(sums.shape, np.uint8)  # a pair is in two windows, or seldom three
        for window, part in seen:
            last = min(end, window.end)
            place = slice(0, last - start), slice(window.start, window.end)
            sums[place] += part[start - window.start : last - window.start]
            counts[place] += 1
        yield mx.array(np.divide(sums, counts, out=sums, where=counts > 1))
