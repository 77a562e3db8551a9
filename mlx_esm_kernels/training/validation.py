"""How well a model fills in masked residues of held-out proteins, beside what needs no model."""

from __future__ import annotations

import math
import struct
from collections.abc import Iterator, Sequence

import mlx.core as mx
import numpy as np
import numpy.typing as npt

from ..data.alphabet import Alphabet
from ..data.frequencies import residue_frequencies
from ..data.masking import TO_MEASURE, Masked, OptimalLoss, mask_tokens
from ..data.packing import PackedBatches, batch_shape
from ..data.protein_masking import mask_for
from ..data.proteins import Proteins
from ..distributed.ranks import Ranks
from ..models.esm1 import ESM1
from ..system.errors import DataError
from .loss import as_arrays, masked_loss

# Not the seed of a run: runs that differ in it still have the same masks here.
MASK_SEED = 20_240_229
TOKENS_PER_BATCH = 8_192
MAX_TOKENS = 65_536  # about 9,000 targets: perplexity known to 1 %, for little time


class Validation:
    """Masked residues of held-out proteins: the same ones every time, all shown as `<mask>`.

    So perplexity is that of papers, and models are alike before it, whatever masks they were
    trained with: 15 % of the residues are targets for every objective.

    Args:
        proteins: where the residues are.
        train: (N,) indices of the proteins that the model learns from; their residue frequencies
            are the yardstick.
        valid: (M,) indices of the held-out proteins. A random choice of them is taken where they
            are more than `max_tokens` tokens.
        alphabet: of the tokens.
        max_positions: longest protein in tokens; longer ones are cropped.
        optimal_loss: gives the entropy floor, where the source of the proteins is known exactly.
            Left aside if a protein is cropped.
        max_tokens: about how many tokens to validate on.
        with_bound: measure the bound of `diffusion` as well, on the same proteins, with masks whose
            rates are spread over all of (0, 1] and which are the same every time, too.

    Attributes:
        unigram_loss: nats per target when residue frequencies alone predict it.
        floor_loss: nats per target of the best prediction there is; None where nobody knows it.
        num_targets: int. num_proteins: int, held-out proteins with targets in them.

    Raises:
        DataError: there is no target.
    """

    def __init__(
        self,
        proteins: Proteins,
        train: npt.ArrayLike,
        valid: npt.ArrayLike,
        alphabet: Alphabet,
        *,
        max_positions: int,
        optimal_loss: OptimalLoss | None = None,
        max_tokens: int = MAX_TOKENS,
        with_bound: bool = False,
    ) -> None:
        valid = np.asarray(valid)
        if proteins.lengths[valid].max() > max_positions - alphabet.num_specials:
            optimal_loss = None  # which is that of whole proteins
        frequencies = residue_frequencies(proteins, np.asarray(train), alphabet)
        self._batches: list[tuple[mx.array, ...]] = []
        self._counts: list[float] = []
        self._bound_batches: list[tuple[mx.array, ...]] = []
        self._bound_weights: list[float] = []
        bound_rng = np.random.default_rng(MASK_SEED)
        self.num_proteins = 0
        unigram_nats, floor_nats = 0.0, 0.0
        for tokens, segment_ids, masked in _masked_batches(
            proteins, valid, alphabet, max_positions, max_tokens
        ):
            count = int(masked.weights.sum())
            if not count:
                continue
            unigram_nats -= float(np.log(frequencies[masked.targets[:count]]).sum())
            if optimal_loss is not None:
                floor_nats += optimal_loss(
                    masked.inputs, tokens, segment_ids, masked.is_target, TO_MEASURE
                )[0]
            self.num_proteins += int(segment_ids.max(axis=1).sum())
            self._counts.append(count)
            self._batches.append(as_arrays(masked, segment_ids))
            if with_bound:
                masked = mask_for("diffusion", tokens, segment_ids, alphabet, bound_rng)
                self._bound_weights.append(masked.weight)
                self._bound_batches.append(as_arrays(masked, segment_ids))
        self.num_targets = int(sum(self._counts))
        if not self.num_targets:
            raise DataError(
                "The held-out proteins have none of the 20 amino acids, so there is nothing to "
                "validate on: give other proteins, or more of them."
            )
        self.unigram_loss = unigram_nats / self.num_targets
        self.floor_loss = floor_nats / self.num_targets if optimal_loss is not None else None

    def __len__(self) -> int:
        """Batches of `losses` and `bound_losses` together."""
        return len(self._batches) + len(self._bound_batches)

    def losses(self, model: ESM1, ranks: Ranks | None = None) -> Iterator[float]:
        """The share of each batch in the mean loss; their sum is nats per target.

        One at a time, so that the caller can show how far it is, or stop. The `ranks` share the
        batches out, and all of them get all the losses.
        """
        return _losses(model, self._batches, self._counts, ranks)

    def bound_losses(self, model: ESM1, ranks: Ranks | None = None) -> Iterator[float]:
        """As `losses`, of the bound: their sum is nats per residue. None without `with_bound`."""
        return _losses(model, self._bound_batches, self._bound_weights, ranks)


def perplexity(loss: float) -> float:
    """exp(loss), the number of residues that a guess is as good as a choice among; inf from 700."""
    return math.exp(loss) if loss < 700 else math.inf


def _losses(
    model: ESM1,
    batches: Sequence[tuple[mx.array, ...]],
    weights: Sequence[float],
    ranks: Ranks | None,
) -> Iterator[float]:
    total = sum(weights)

    def share(place: int) -> bytes:
        loss = float(masked_loss(model, *batches[place]))
        return struct.pack("<d", loss * weights[place] / total)

    ranks = Ranks() if ranks is None else ranks
    for _, found in ranks.in_turns(range(len(batches)), share):
        yield from struct.unpack("<d", found)


def _masked_batches(
    proteins: Proteins, valid: np.ndarray, alphabet: Alphabet, max_positions: int, max_tokens: int
) -> Iterator[tuple[np.ndarray, np.ndarray, Masked]]:
    """Batches of (true tokens, segment ids, masked), (B, L) each, up to max_tokens tokens."""
    rows, row_length = batch_shape(
        proteins.lengths[valid],
        tokens_per_batch=TOKENS_PER_BATCH,
        max_positions=max_positions,
        num_specials=alphabet.num_specials,
    )
    batches = PackedBatches(
        proteins, valid, alphabet, rows=rows, row_length=row_length, seed=MASK_SEED
    )
    rng = np.random.default_rng(MASK_SEED)
    tokens = 0
    for batch in batches:
        yield (
            batch.tokens,
            batch.segment_ids,
            mask_tokens(batch.tokens, batch.segment_ids, alphabet, rng, shown=TO_MEASURE),
        )
        tokens += int((batch.segment_ids != 0).sum())
        if tokens >= max_tokens:
            return
