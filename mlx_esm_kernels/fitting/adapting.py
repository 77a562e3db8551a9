"""A head and some parameters of the model beneath, trained together.

It goes on where a head on frozen features ends; what is kept is never worse on the validation part.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

import mlx.core as mx
import mlx.nn as nn
import numpy as np
import numpy.typing as npt

from ..data.proteins import Proteins
from ..inference.requirements import seen_at_once
from ..inference.windows import tile
from ..models.esm1 import ESM1
from .head import Head, HeadSpec
from .optimising import in_batches

Ints = npt.NDArray[np.int64]
TOKENS_PER_BATCH = 2048


class _Both(nn.Module):
    """A head and a model, of which what is not frozen trains."""

    def __init__(self, head: Head, model: ESM1) -> None:
        super().__init__()
        self.head, self.model = head, model


class AdaptedPredictor:
    """A head on the features of a model that trains with it; see `optimising.Predictor`.

    Args:
        head, spec: the head.
        model: frozen but for what is to train in it.
        proteins: the proteins.
        tokens_per_batch: about how many tokens a batch has.
        on_step: called with the residues of each batch that goes through the model.
    """

    def __init__(
        self,
        head: Head,
        spec: HeadSpec,
        model: ESM1,
        proteins: Proteins,
        tokens_per_batch: int = TOKENS_PER_BATCH,
        on_step: Callable[[int], object] = lambda residues: None,
    ) -> None:
        self._both = _Both(head, model)
        self._spec, self._proteins, self._budget = spec, proteins, tokens_per_batch
        self._wild = model.alphabet.encode(spec.wild_type)
        self._on_step = on_step

    @property
    def trained(self) -> nn.Module:
        return self._both

    def groups(self, places: Ints) -> Iterator[Ints]:
        specials = self._both.model.alphabet.num_specials
        costs = self._proteins.lengths[places].astype(np.int64) + specials
        return in_batches(places, costs, max(1, self._budget - len(self._wild)))

    def outputs(self, places: Ints) -> mx.array:
        proteins = [self._proteins[place] for place in places.tolist()]
        wild = [self._wild] if len(self._wild) else []
        rows = self._residues([*proteins, *wild])  # (residues, F) of all
        lengths = np.array([len(ids) for ids in proteins])
        self._on_step(int(lengths.sum()))
        if self._spec.level == "protein":
            firsts = np.cumsum(lengths) - lengths
            if wild:
                rows = self._changed(rows, proteins, firsts)
            else:
                means = np.zeros((len(proteins), int(lengths.sum())), np.float32)
                for place, (first, length) in enumerate(zip(firsts, lengths, strict=True)):
                    means[place, first : first + length] = 1 / length
                rows = mx.array(means) @ rows
        outputs: mx.array = self._both.head(rows)
        return outputs

    def _residues(self, proteins: list[npt.NDArray[np.uint8]]) -> mx.array:
        """The features (residues of all, C * layers) float32, windows joined; one pass."""
        model = self._both.model
        alphabet = model.alphabet
        tokens: list[npt.NDArray[np.int32]] = []
        segments: list[npt.NDArray[np.int32]] = []
        kept: list[Ints] = []
        first, most = 0, seen_at_once(model.config, self._spec.long)
        for ids in proteins:
            for window in tile(len(ids), most):
                row = alphabet.with_specials(ids[window.start : window.end])
                residue = first + alphabet.residue_slice.start - window.start
                kept.append(np.arange(residue + window.keep_start, residue + window.keep_end))
                tokens.append(row)
                segments.append(np.full(len(row), len(segments) + 1, np.int32))
                first += len(row)
        representations = model(
            mx.array(np.concatenate(tokens)[None]),
            mx.array(np.concatenate(segments)[None]),
            repr_layers=self._spec.layers,
        )["representations"]
        together = mx.concatenate(
            [representations[layer][0] for layer in self._spec.layers], axis=1
        )
        return together.astype(mx.float32)[mx.array(np.concatenate(kept))]

    def _changed(
        self, rows: mx.array, proteins: list[npt.NDArray[np.uint8]], firsts: Ints
    ) -> mx.array:
        """(N, 2 F) sums over changed residues, as `FeatureMaker` has them; the last protein is
        the wild type."""
        changed = [np.flatnonzero(ids != self._wild) for ids in proteins]
        counts = [len(some) for some in changed]
        sums = np.zeros((len(proteins), sum(counts)), np.float32)
        sums[np.repeat(np.arange(len(proteins)), counts), np.arange(sum(counts))] = 1
        at = np.concatenate(changed)
        of_variant = at + np.repeat(firsts, counts)
        of_wild = at + (rows.shape[0] - len(self._wild))
        both = mx.concatenate([rows[mx.array(of_variant)], rows[mx.array(of_wild)]], axis=1)
        centre = mx.tile(rows[-len(self._wild) :].mean(axis=0), 2)
        return mx.array(sums) @ (both - centre)
