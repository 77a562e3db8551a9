"""Masked batches without end, whose place in the data can be noted and gone back to."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice
from typing import Any

import numpy as np
import numpy.typing as npt

from .alphabet import Alphabet
from .masking import Masked, mask_tokens
from .packing import Batch, PackedBatches


@dataclass(frozen=True)
class MaskedBatch:
    """What one step is trained on.

    Attributes:
        masked: the inputs and the targets.
        segment_ids: (B, L) int32, 0 = padding.
        residues: how many residues are in it.
    """

    masked: Masked
    segment_ids: npt.NDArray[np.int32]
    residues: int


class MaskedBatches:
    """Iterates over the batches of one epoch after the other, masked anew each time.

    Args:
        batches: the packed proteins.
        alphabet: of their tokens.
        seed: of the masks, one or several whole numbers; the batches bring their own.
    """

    def __init__(
        self, batches: PackedBatches, alphabet: Alphabet, seed: int | tuple[int, ...]
    ) -> None:
        self.batches, self.alphabet = batches, alphabet
        self._rng = np.random.default_rng(seed)
        special = [i for i, token in enumerate(alphabet.tokens) if token.startswith("<")]
        special.remove(alphabet.unk_idx)  # an unreadable residue is one all the same
        self._special = special
        self._epoch, self._batch = batches.epoch, 0
        self._rest: Iterator[Batch] | None = None

    def __iter__(self) -> MaskedBatches:
        return self

    def __next__(self) -> MaskedBatch:
        batch = self._next_batch()
        masked = mask_tokens(batch.tokens, batch.segment_ids, self.alphabet, self._rng)
        residues = batch.tokens.size - int(np.isin(batch.tokens, self._special).sum())
        return MaskedBatch(masked, batch.segment_ids, residues)

    def place(self) -> dict[str, Any]:
        """Where the next batch is, and the state of chance: plain numbers, ready for json."""
        return {
            "epoch": self._epoch,
            "batch": self._batch,
            "random": self._rng.bit_generator.state,
        }

    def go_to(self, place: dict[str, Any]) -> None:
        """Go on from a `place` of batches of the same proteins, shape and seed."""
        self._epoch, self._batch = place["epoch"], place["batch"]
        self._rng.bit_generator.state = place["random"]
        self._rest = None

    def _next_batch(self) -> Batch:
        while True:
            if self._rest is None:
                self.batches.epoch = self._epoch
                self._rest = islice(self.batches, self._batch, None)
            for batch in self._rest:
                self._batch += 1
                return batch
            self._epoch, self._batch, self._rest = self._epoch + 1, 0, None
