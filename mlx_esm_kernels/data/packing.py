"""Proteins packed into batches of one fixed shape.

Proteins of all lengths stand side by side in rows of `row_length` tokens, told apart by segment
ids. The shape never changes, so the training step is compiled once, and hardly a token is padding.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from .alphabet import Alphabet
from .proteins import Proteins

# Proteins are packed this many at a time: enough choice to fill rows well, and little to keep.
WINDOW = 16_384
_BLOCK = 1 << 20  # proteins that are gone through at a time, where nothing is kept of them


Mark = dict[str, Any]


@dataclass(frozen=True)
class Batch:
    """Packed proteins.

    Attributes:
        tokens: (B, L) int32; the residues of each protein, with the cls and eos of the alphabet;
            padding elsewhere.
        segment_ids: (B, L) int32; 1, 2, ... for the proteins of a row, 0 for padding.
    """

    tokens: npt.NDArray[np.int32]
    segment_ids: npt.NDArray[np.int32]


class PackedBatches:
    """Batches of `rows` x `row_length` tokens; iterating once gives one epoch of them.

    Every protein is in every epoch. One that is too long is cropped to a window of residues, drawn
    anew each epoch. Only the last batch of an epoch may hold rows of padding alone. Iterating again
    is the next epoch: another order, other crops; the same seed gives the same epochs.

    In memory are, beside `indices`, the order of the epoch, 4 bytes a protein (8 from 2^31 proteins
    on), and 12 bytes for each that is cropped.

    Args:
        proteins: where the residues are.
        indices: (N,) integer, which proteins to use.
        alphabet: for cls, eos and padding.
        rows: B, rows of a batch.
        row_length: L, tokens of a row.
        seed: a whole number, not negative; with the epoch it determines order and crops.
        crop: draw crops anew each epoch; False keeps the crops of the first epoch.
        shuffle: False keeps the order of `indices`, as far as packing allows, and that of the rows.
            With crop=False it makes every epoch the same, as validation wants it.
        max_length: the most tokens of one protein, cls and eos included; None: a whole row. The
            model's `max_positions` belongs here if rows are longer than that.

    Attributes:
        epoch: int, the number of the epoch that the next iteration gives; may be set, to go on.
        mark: a place in the epoch that is iterated, before its next batch: plain numbers, ready
            for json, with which `skipping` finds that batch soon.

    Raises:
        ValueError: a number is out of range, or there are no proteins.
    """

    def __init__(
        self,
        proteins: Proteins,
        indices: npt.ArrayLike,
        alphabet: Alphabet,
        *,
        rows: int,
        row_length: int,
        seed: int,
        crop: bool = True,
        shuffle: bool = True,
        max_length: int | None = None,
    ) -> None:
        self.indices = np.asarray(indices)
        if self.indices.dtype not in (np.int32, np.int64):
            self.indices = self.indices.astype(np.int64)
        longest = row_length if max_length is None else min(row_length, max_length)
        _check(self.indices, len(proteins), rows, longest, seed, alphabet.num_specials)
        self.proteins, self.alphabet = proteins, alphabet
        self.rows, self.row_length, self.seed = rows, row_length, seed
        self.crop, self.shuffle = crop, shuffle
        self.epoch = 0
        self.mark: Mark | None = None
        self._longest = longest - alphabet.num_specials  # in residues
        self._used_tokens = 0
        self._all_tokens = 0

    @property
    def fill(self) -> float:
        """The share of tokens handed out so far that are not padding; 0 before the first batch."""
        return self._used_tokens / self._all_tokens if self._all_tokens else 0.0

    def __iter__(self) -> Iterator[Batch]:
        return self.skipping(0)

    def skipping(self, count: int, mark: Mark | None = None) -> Iterator[Batch]:
        """An epoch as iterating gives it, less its first batches, which are not made.

        Args:
            count: how many.
            mark: of the same epoch, as it was when one of the first `count` + 1 batches came; what
                lies before it is not even packed.
        """
        epoch = self.epoch
        self.epoch += 1
        self.mark = mark
        return self._batches(epoch, count, mark)

    def _batches(self, epoch: int, skipped: int, mark: Mark | None) -> Iterator[Batch]:
        rng = np.random.default_rng([self.seed, epoch, 0])
        order, crops = self._draw_order(rng), self._draw_crops(epoch)
        first, made = 0, 0
        waiting: list[_Row] = []
        if mark is not None:
            first, made = mark["proteins"], mark["batches"]
            waiting = [_Row(*row) for row in mark["rows"]]
            rng.bit_generator.state = mark["random"]
        for place in range(first, len(order), WINDOW):
            self.mark = {
                "proteins": place,
                "batches": made,
                "rows": [list(row) for row in waiting],
                "random": rng.bit_generator.state,
            }
            rows = self._pack(order[place : place + WINDOW], crops)
            waiting += [rows[i] for i in rng.permutation(len(rows))] if self.shuffle else rows
            while len(waiting) >= self.rows:
                made += 1
                if made > skipped:
                    yield self._batch(waiting[: self.rows])
                del waiting[: self.rows]
        if waiting and made >= skipped:
            yield self._batch(waiting)

    def _draw_order(self, rng: np.random.Generator) -> npt.NDArray[np.integer[Any]]:
        """Places in `indices`."""
        count = len(self.indices)
        order = np.arange(count, dtype=np.int32 if count < 2**31 else np.int64)
        if self.shuffle:
            rng.shuffle(order)  # the same order in either dtype
        return order

    def _draw_crops(self, epoch: int) -> _Crops:
        rng = np.random.default_rng([self.seed, epoch if self.crop else 0, 1])
        places, starts = [np.empty(0, np.int64)], [np.empty(0, np.int32)]
        for first in range(0, len(self.indices), _BLOCK):
            excess = self.proteins.lengths[self.indices[first : first + _BLOCK]] - self._longest
            cropped = np.flatnonzero(excess > 0)
            places.append(first + cropped)
            # As int64, whose numbers are those that this seed has always given.
            high = excess[cropped].astype(np.int64) + 1
            starts.append(rng.integers(0, high).astype(np.int32))
        return _Crops(np.concatenate(places), np.concatenate(starts))

    def _pack(self, places: npt.NDArray[np.integer[Any]], crops: _Crops) -> list[_Row]:
        """Rows of the proteins at these places in `indices`."""
        numbers, starts = self.indices[places], crops.starts_at(places)
        residues = np.minimum(self.proteins.lengths[numbers], self._longest)
        rows = best_fit(residues + self.alphabet.num_specials, self.row_length)
        return [_Row(numbers[row].tolist(), starts[row].tolist()) for row in rows]

    def _batch(self, rows: list[_Row]) -> Batch:
        shape = (self.rows, self.row_length)
        tokens = np.full(shape, self.alphabet.padding_idx, dtype=np.int32)
        segment_ids = np.zeros(shape, dtype=np.int32)
        for row, (numbers, starts) in enumerate(rows):
            at = 0
            for segment, (number, start) in enumerate(zip(numbers, starts, strict=True), start=1):
                protein = self.proteins[number]
                if len(protein) > self._longest:
                    protein = protein[start : start + self._longest]
                end = at + len(protein) + self.alphabet.num_specials
                tokens[row, at:end] = self.alphabet.with_specials(protein)
                segment_ids[row, at:end] = segment
                at = end
            self._used_tokens += at
        self._all_tokens += self.rows * self.row_length
        return Batch(tokens, segment_ids)


class _Row(NamedTuple):
    """The proteins of a row, and where the crop of each begins."""

    numbers: list[int]
    starts: list[int]


class _Crops(NamedTuple):
    """Which proteins of an epoch are cropped, as places in `indices`, and where they begin then."""

    places: npt.NDArray[np.int64]  # ascending
    starts: npt.NDArray[np.int32]

    def starts_at(self, places: npt.NDArray[np.integer[Any]]) -> npt.NDArray[np.int32]:
        """(N,) int32, for each place; 0 where nothing is cropped."""
        if not len(self.places):
            return np.zeros(len(places), np.int32)
        found = np.searchsorted(self.places, places).clip(max=len(self.places) - 1)
        return np.where(self.places[found] == places, self.starts[found], 0)


def best_fit(lengths: npt.ArrayLike, capacity: int) -> list[list[int]]:
    """Pack items into rows by best-fit decreasing (Johnson, 1973).

    The longest item goes first, each into the fullest row that still has space for it. That needs
    at most 11/9 of the fewest rows possible, and on proteins nearly the fewest.

    Args:
        lengths: (N,) integer, each in [1, capacity].
        capacity: length of a row.

    Returns:
        The rows: each a list of places in `lengths`, longest item first.

    Raises:
        ValueError: an item is empty or longer than a row.
    """
    sizes = np.asarray(lengths, dtype=np.int64)
    if sizes.size and (sizes.min() < 1 or sizes.max() > capacity):
        raise ValueError(
            f"[best_fit] lengths must be in [1, capacity] = [1, {capacity}]; "
            f"got {sizes.min()} to {sizes.max()}."
        )
    rows: list[list[int]] = []
    rows_by_space: list[list[int]] = [[] for _ in range(capacity + 1)]
    spaces = 0  # a set of integers as bits: bit s is set where a row has s tokens of free space
    for item in np.argsort(-sizes, kind="stable").tolist():
        size = int(sizes[item])
        enough = spaces >> size
        if enough:
            space = size + (enough & -enough).bit_length() - 1  # the lowest bit: the tightest row
            row = rows_by_space[space].pop()
            if not rows_by_space[space]:
                spaces ^= 1 << space
        else:
            space, row = capacity, len(rows)
            rows.append([])
        rows[row].append(item)
        rows_by_space[space - size].append(row)
        spaces |= 1 << (space - size)
    return rows


def batch_shape(
    lengths: np.ndarray, *, tokens_per_batch: int, max_positions: int, num_specials: int
) -> tuple[int, int]:
    """Rows and row length of batches that hold about `tokens_per_batch` tokens.

    A row is as long as the longest protein the model takes, which packs best and crops least;
    a small budget, or few proteins, make it shorter.

    Args:
        lengths: (N,) residues of each protein.
        tokens_per_batch: tokens of a batch, padding counted.
        max_positions: tokens of the longest protein that the model takes.
        num_specials: how many of cls and eos stand around a protein.
    """
    blocks = (lengths[first : first + _BLOCK] for first in range(0, len(lengths), _BLOCK))
    needed = sum(int(np.minimum(block + num_specials, max_positions).sum()) for block in blocks)
    row_length = min(max_positions, tokens_per_batch, needed)
    rows = min(tokens_per_batch // row_length, math.ceil(needed / row_length))
    return rows, row_length


def _check(
    indices: npt.NDArray[np.integer[Any]],
    num_proteins: int,
    rows: int,
    longest: int,
    seed: int,
    num_specials: int,
) -> None:
    """Refuse what cannot be packed, in a sentence."""
    if rows < 1:
        raise ValueError(f"[PackedBatches] rows must be at least 1; got {rows}.")
    if longest <= num_specials:
        raise ValueError(
            f"[PackedBatches] row_length and max_length must be at least {num_specials + 1} "
            f"(a residue, and {num_specials} of cls and eos); got {longest}."
        )
    if seed < 0:
        raise ValueError(f"[PackedBatches] seed must not be negative; got {seed}.")
    if indices.ndim != 1 or not len(indices):
        raise ValueError(
            f"[PackedBatches] indices must be (N,) with N at least 1; got shape {indices.shape}."
        )
    if indices.min() < 0 or indices.max() >= num_proteins:
        raise ValueError(
            f"[PackedBatches] indices must be in [0, {num_proteins}), the number of proteins; "
            f"got {indices.min()} to {indices.max()}."
        )
