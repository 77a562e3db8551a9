"""Masked batches without end, whose place in the data can be noted and gone back to."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from .alphabet import Alphabet
from .masking import Masked, eighths
from .packing import Batch, Mark, PackedBatches
from .protein_masking import mask_for


@dataclass(frozen=True)
class MaskedBatch:
    """What one step is trained on.

    Attributes:
        masked: the inputs and the targets.
        segment_ids: (B, L) int32, 0 = padding.
        residues: how many are in it; of a part of a batch, in the whole batch.
        weight: the sum of the weights of its targets, by which the loss of this batch counts beside
            others; of a part of a batch, of the whole one.
    """

    masked: Masked
    segment_ids: npt.NDArray[np.int32]
    residues: int
    weight: float


class MaskedBatches:
    """Iterates over the batches of one epoch after the other, masked anew each time.

    Args:
        batches: the packed proteins.
        alphabet: of their tokens.
        seed: of the masks, one or several whole numbers; the batches bring their own.
        part: (number, count), to give part `number` of the `count` of each batch, see `part_of`.
            The place in the data and the state of chance are those of whole batches.
        objective: how they are masked, see `mask_for`.
    """

    def __init__(
        self,
        batches: PackedBatches,
        alphabet: Alphabet,
        seed: int | tuple[int, ...],
        part: tuple[int, int] = (0, 1),
        objective: str = "mlm",
    ) -> None:
        self.batches, self.alphabet, self.part = batches, alphabet, part
        self.objective = objective
        self._rng = np.random.default_rng(seed)
        special = [i for i, token in enumerate(alphabet.tokens) if token.startswith("<")]
        special.remove(alphabet.unk_idx)  # an unreadable residue is one all the same
        self._special = special
        self._epoch, self._batch = batches.epoch, 0
        self._mark: Mark | None = None
        self._rest: Iterator[Batch] | None = None

    def __iter__(self) -> MaskedBatches:
        return self

    def __next__(self) -> MaskedBatch:
        batch = self._next_batch()
        tokens, ids = batch.tokens, batch.segment_ids
        masked = mask_for(self.objective, tokens, ids, self.alphabet, self._rng)
        residues = tokens.size - int(np.isin(tokens, self._special).sum())
        whole = MaskedBatch(masked, ids, residues, masked.weight)
        number, count = self.part
        if count == 1:
            return whole
        padding = self.alphabet.padding_idx
        return part_of(whole, number, count, padding, rates_vary=self.objective != "mlm")

    def place(self) -> dict[str, Any]:
        """Where the next batch is, and the state of chance: plain numbers, ready for json."""
        return {
            "epoch": self._epoch,
            "batch": self._batch,
            "random": self._rng.bit_generator.state,
            "near": self._mark,
        }

    def go_to(self, place: dict[str, Any]) -> None:
        """Go on from a `place` of batches of the same proteins, shape and seed."""
        self._epoch, self._batch = place["epoch"], place["batch"]
        self._rng.bit_generator.state = place["random"]
        # Without it (in checkpoints of earlier versions) all before the batch is packed again.
        self._mark = place.get("near")
        self._rest = None

    def _next_batch(self) -> Batch:
        while True:
            if self._rest is None:
                self.batches.epoch = self._epoch
                self._rest = self.batches.skipping(self._batch, self._mark)
            for batch in self._rest:
                self._batch += 1
                self._mark = self.batches.mark
                return batch
            self._epoch, self._batch, self._rest = self._epoch + 1, 0, None
            self._mark = None


def part_of(
    batch: MaskedBatch, number: int, count: int, padding_idx: int, *, rates_vary: bool = False
) -> MaskedBatch:
    """Part `number` of the `count` that the rows of a batch are divided into.

    Each row is in one part. All parts have one shape: where `count` does not divide the rows, some
    have a row of padding. The slots for targets are as many as nearly every part needs (five
    standard deviations above the mean); a part that needs more has more. Where `rates_vary` from
    protein to protein they are those of `eighths`, as of a whole batch.

    Raises:
        ValueError: there are fewer rows than parts.
    """
    rows, row_length = batch.segment_ids.shape
    if rows < count:
        raise ValueError(f"[part_of] {rows} rows cannot be divided into {count} parts.")
    first, end = rows * number // count, rows * (number + 1) // count
    shape = (math.ceil(rows / count), row_length)
    inputs = np.full(shape, padding_idx, np.int32)
    segment_ids = np.zeros(shape, np.int32)
    inputs[: end - first] = batch.masked.inputs[first:end]
    segment_ids[: end - first] = batch.segment_ids[first:end]

    all_of = batch.masked
    is_mine = (all_of.weights > 0) & (all_of.positions >= first * row_length)
    mine = np.flatnonzero(is_mine & (all_of.positions < end * row_length))
    if rates_vary:
        slots = eighths(len(mine), segment_ids.size)
    else:
        mean = len(all_of.weights) * shape[0] / rows
        slots = max(len(mine), min(len(all_of.weights), math.ceil(mean + 5 * math.sqrt(mean))))
    positions = all_of.positions[mine] - first * row_length
    masked = Masked.of(inputs, positions, all_of.targets[mine], all_of.weights[mine], slots)
    return MaskedBatch(masked, segment_ids, batch.residues, batch.weight)
