"""What a model says at the targets of masked copies of proteins."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from ..data.alphabet import STANDARD_RESIDUES, Alphabet
from ..data.targets import Targets
from ..models.esm1 import ESM1
from .likelihood import TOKENS_PER_PASS, in_passes, log_softmax, packed_logits
from .requirements import Long, seen_at_once
from .windows import tile

_Ids = npt.NDArray[np.uint8]


@dataclass(frozen=True)
class _Piece:
    """A window of a masked copy: its tokens, and the targets that it answers for.

    Attributes:
        tokens: (n,) int32, with cls and eos.
        columns: (m,) where the answers are in `tokens`.
        places: (m,) where they belong among the targets of all copies.
    """

    tokens: npt.NDArray[np.int32]
    columns: npt.NDArray[np.int64]
    places: npt.NDArray[np.int64]


class MaskedPredictor:
    """A model that is asked for masked residues.

    Proteins stand side by side in one row, as for embeddings. Of one that is seen in windows each
    target is taken from the window in which it is farther from an end.

    Args:
        model: with a language head.
        alphabet: of the proteins, which may be another than the model's.
        long: see `Embedder`. No protein is too long for the model.
        tokens_per_pass: about how many tokens one forward pass has.
    """

    def __init__(
        self,
        model: ESM1,
        alphabet: Alphabet,
        long: Long = "error",
        tokens_per_pass: int = TOKENS_PER_PASS,
    ) -> None:
        self._model = model
        self._seen_at_once = seen_at_once(model.config, long)
        self._tokens_per_pass = tokens_per_pass
        self._translated = translation(alphabet, model.alphabet)

    def log_probabilities(self, targets: Targets, copies: range) -> npt.NDArray[np.float64]:
        """(M, 20) ln p of each residue at the M targets of some copies, in their order.

        p is over the whole vocabulary of the model, so a row of exp may sum to less than 1; the
        order is that of `STANDARD_RESIDUES`.

        Raises:
            UserError: the model gives NaN or infinity.
        """
        before = int(targets.offsets[copies.start])
        found = np.empty((int(targets.offsets[copies.stop]) - before, len(STANDARD_RESIDUES)))
        residues = self._model.alphabet.amino_acid_ids.astype(np.int64)
        pieces = (piece for copy in copies for piece in self._pieces(targets, copy))
        for some in in_passes(pieces, lambda piece: len(piece.tokens), self._tokens_per_pass):
            places = np.concatenate([piece.places for piece in some]) - before
            rows, columns = [piece.tokens for piece in some], [piece.columns for piece in some]
            logits = packed_logits(self._model, rows, columns)
            found[places] = log_softmax(logits)[:, residues]
        return found

    def _pieces(self, targets: Targets, copy: int) -> Iterator[_Piece]:
        alphabet = self._model.alphabet
        own = targets.of_copy(copy)
        positions = targets.positions[own].astype(np.int64)
        ids = self._translated[targets.ids(copy)]
        ids[positions] = alphabet.mask_idx
        for window in tile(len(ids), self._seen_at_once):
            kept = (positions >= window.keep_start) & (positions < window.keep_end)
            if kept.any():
                yield _Piece(
                    alphabet.with_specials(ids[window.start : window.end]),
                    positions[kept] - window.start + int(alphabet.prepend_cls),
                    own.start + np.flatnonzero(kept),
                )


def translation(source: Alphabet, target: Alphabet) -> _Ids:
    """(256,) uint8: the target's id of the same residue for each id of the source."""
    ids = np.full(256, target.unk_idx, dtype=np.uint8)
    for i, token in enumerate(source.tokens):
        if len(token) == 1 and token in target.tokens:
            ids[i] = target.tokens.index(token)
    return ids
