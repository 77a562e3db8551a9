"""Which proteins a head learns from, by which its best epoch is chosen, and which judge it."""

from __future__ import annotations

import warnings
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from ..system.errors import DataError

PARTS = ("train", "valid", "test")
_NAMES = {
    **dict.fromkeys(("train", "training", "trn"), 0),
    **dict.fromkeys(("valid", "validation", "val", "dev", "development"), 1),
    **dict.fromkeys(("test", "testing", "tst"), 2),
}

Parts = npt.NDArray[np.int64]
Hashes = npt.NDArray[np.uint64]


class SplitWarning(UserWarning):
    """Something about the parts that their owner has to know."""


def split_by_hash(hashes: Hashes, *, valid_fraction: float, test_fraction: float) -> Parts:
    """Part every protein by a hash of its residues, so that duplicates never part.

    Where a protein goes depends on its residues alone: neither on its place nor on a seed, nor, but
    where a part would be empty, on the others.

    Args:
        hashes: (N,) of `Proteins`; at least three distinct ones.
        valid_fraction, test_fraction: shares of the distinct proteins, about; the latter may be 0.

    Returns:
        (N,) places in PARTS.

    Raises:
        ValueError: the shares are out of range.
    """
    if not (valid_fraction > 0 and test_fraction >= 0 and valid_fraction + test_fraction < 1):
        raise ValueError(
            f"[split_by_hash] valid_fraction must be positive and test_fraction not negative, "
            f"below 1 together; got {valid_fraction} and {test_fraction}."
        )
    distinct = np.unique(hashes)
    ends = [
        int(np.searchsorted(distinct, np.uint64(int(share * 2.0**64))))
        for share in (test_fraction, test_fraction + valid_fraction)
    ]
    # The lowest hashes are also those that `train` holds out.
    first_valid = min(max(ends[0], 1), len(distinct) - 2) if test_fraction else 0
    first_train = min(max(ends[1], first_valid + 1), len(distinct) - 1)
    ranks = np.searchsorted(distinct, hashes)
    return np.where(ranks < first_valid, 2, np.where(ranks < first_train, 1, 0)).astype(np.int64)


def split_by_column(
    cells: Sequence[str], rows: Sequence[int], hashes: Hashes, where: str, valid_fraction: float
) -> Parts:
    """The parts that a table names; where none is called valid, a share of train is, by hash.

    Args:
        cells: N of the column: train, valid or test, or what else people call them.
        rows: the number of each in the table, from 1.
        hashes: (N,) of `Proteins`.
        where: what messages call the column.
        valid_fraction: share of the distinct proteins of train.

    Returns:
        (N,) places in PARTS. A warning says where a protein is in several.

    Raises:
        DataError: a cell names no part, or nothing is to be learned from.
    """
    parts = []
    for cell, row in zip(cells, rows, strict=True):
        part = _NAMES.get(cell.strip().lower())
        if part is None:
            raise DataError(f"{where}, row {row}: expected train, valid or test; got {cell!r}.")
        parts.append(part)
    found = np.array(parts, dtype=np.int64)
    train = np.flatnonzero(found == 0)
    if len(np.unique(hashes[train])) < 3:
        raise DataError(f"{where}: fewer than three proteins are called train.")
    if not (found == 1).any():
        found[train] = split_by_hash(hashes[train], valid_fraction=valid_fraction, test_fraction=0)
        warnings.warn(
            f"{where} calls none valid; {int((found == 1).sum()):,} of {len(train):,} proteins of "
            f"train are taken to choose the best epoch by.",
            SplitWarning,
            stacklevel=3,
        )
    _warn_of_leaks(found, hashes, where)
    return found


def _warn_of_leaks(parts: Parts, hashes: Hashes, where: str) -> None:
    pairs = np.unique(np.stack([hashes, parts.astype(np.uint64)], axis=1), axis=0)
    shared = len(pairs) - len(np.unique(hashes))
    if shared:
        warnings.warn(
            f"{where}: {'a sequence is' if shared == 1 else f'{shared:,} sequences are'} in more "
            f"than one part, so what is reported is too good.",
            SplitWarning,
            stacklevel=4,
        )
