"""Features of proteins: the mean embedding of each, or the embedding of each of its residues; of
variants of one protein, the embeddings of the residues that changed.

The mean over a protein hardly moves where one residue in hundreds is another. So the features of a
variant are a sum over its changed residues of their embeddings, and beside it the same sum over the
wild type's residues at those places, which says where they are. Both are taken from the mean over
the wild type's residues, so that the wild type itself, and a second change, are no strange places.

Those of a frozen model are made once. They are in memory, or, where they would fill it (a million
residues of a large model are 5 GB), in a file without a name, which goes with the process.
"""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import mlx.core as mx
import numpy as np
import numpy.typing as npt

from ..data.labelled import Level
from ..data.proteins import Proteins
from ..inference.embedding import LONG_ADVICE, Embedder, Embedding
from ..inference.requirements import Long, require_lengths
from ..models.esm1 import ESM1
from ..system.cache import cache_folder
from ..system.errors import DataError, UserError

Ints = npt.NDArray[np.int64]
Features = npt.NDArray[np.float32]
MOST_IN_MEMORY = 2 << 30  # bytes


class FeatureMaker:
    """A frozen model, and which of its layers are the features.

    Args:
        model: the model.
        layers: see `Embedder`; their embeddings stand side by side.
        level: "protein": a row of features a protein; "residue": one a residue.
        long: see `Embedder`.
        wild_type: the protein that all others are variants of, as text; "": there is none.

    Attributes:
        layers: tuple of int, ascending, none negative. inputs: F, features of a row.

    Raises:
        UserError: the model has no such layers, or the wild type is too long, or no protein.
    """

    def __init__(
        self,
        model: ESM1,
        *,
        layers: Sequence[int],
        level: Level,
        long: Long = "error",
        wild_type: str = "",
    ) -> None:
        if wild_type and level == "residue":
            raise UserError("a wild type is for targets of proteins, not of residues.")
        what = "mean" if level == "protein" and not wild_type else "per-residue"
        self._embedder = Embedder(model, layers=layers, include=(what,), long=long)
        self.layers, self.level = self._embedder.layers, level
        self.inputs = model.config.embed_dim * len(self.layers) * (2 if wild_type else 1)
        self._wild_ids = model.alphabet.encode(wild_type)
        if wild_type:
            self._embedder.require_length("the wild type", len(self._wild_ids))

    def rows(self, lengths: Ints) -> Ints:
        """How many rows proteins of these lengths have."""
        return np.ones_like(lengths) if self.level == "protein" else lengths

    def require(self, proteins: Proteins) -> None:
        """Raise UserError where a protein is too long, or no variant of the wild type."""
        if self._embedder.long == "error":
            require_lengths(self._embedder.model, proteins, LONG_ADVICE)
        length = len(self._wild_ids)
        if not length:
            return
        for place, ids in enumerate(proteins):
            label = f"protein {place + 1} ({proteins.names[place]!r})"
            if len(ids) != length:
                raise UserError(
                    f"{label} has {len(ids):,} residues and the wild type {length:,}; expected "
                    f"variants with substitutions alone. Leave it or --wild-type out."
                )
            changed = int((ids != self._wild_ids).sum())
            if changed > length / 2:
                raise UserError(
                    f"{label} differs from the wild type in {changed:,} of {length:,} residues; "
                    f"is it a variant of another protein?"
                )

    def changes(self, proteins: Proteins) -> Ints:
        """(N,) in how many residues each differs from the wild type; all as long as that."""
        return np.array([(ids != self._wild_ids).sum() for ids in proteins], np.int64)

    def stream(self, proteins: Proteins, places: Iterable[int]) -> Iterator[tuple[int, Features]]:
        """(place, (rows, F)) of some proteins, in their order.

        Raises:
            UserError: the model gives NaN or infinity.
        """
        wild_rows = centre = None
        if len(self._wild_ids):
            wild_rows = self._side_by_side(self._embedder.run([self._wild_ids])[0])
            centre = mx.tile(wild_rows.mean(axis=0), 2)
        lengths = proteins.lengths
        for group in self._embedder.groups(places, lambda place: int(lengths[place])):
            embeddings = self._embedder.run([proteins[place] for place in group])
            for place, embedding in zip(group, embeddings, strict=True):
                rows = self._side_by_side(embedding)
                if wild_rows is not None and centre is not None:
                    changed = mx.array(np.flatnonzero(proteins[place] != self._wild_ids))
                    both = mx.concatenate([rows, wild_rows], axis=1)
                    rows = (both[changed] - centre).sum(axis=0, keepdims=True)
                yield place, np.array(rows)

    def _side_by_side(self, embedding: Embedding) -> mx.array:
        """(rows, C * layers) float32."""
        found = embedding.per_residue
        if embedding.mean:
            found = {layer: mean[None] for layer, mean in embedding.mean.items()}
        return mx.concatenate([found[layer] for layer in self.layers], axis=1).astype(mx.float32)


@dataclass(frozen=True)
class FrozenFeatures:
    """Features of proteins by their places; those that are the same share theirs.

    Attributes:
        values: (rows, F) float32.
        firsts, counts: (N,) int64; protein i has values[firsts[i] : firsts[i] + counts[i]].
    """

    values: Features
    firsts: Ints
    counts: Ints

    def of(self, places: Ints) -> Features:
        """(rows of all of them, F), protein after protein."""
        if (self.counts == 1).all():
            return self.values[self.firsts[places]]
        return np.concatenate(
            [self.values[self.firsts[i] : self.firsts[i] + self.counts[i]] for i in places.tolist()]
        )

    def mean_and_scale(self, places: Ints) -> tuple[Features, Features]:
        """(F,) mean and standard deviation over the rows of some proteins; 1 where that is 0."""
        count = 0
        shift = self.of(places[:1])[0].astype(np.float64)
        sums = np.zeros((2, len(shift)))
        for first in range(0, len(places), 256):
            rows = self.of(places[first : first + 256]) - shift
            sums += rows.sum(axis=0), np.square(rows).sum(axis=0)
            count += len(rows)
        mean, square = sums / count
        scale = np.sqrt(np.maximum(square - mean**2, 0))
        # What only rounding tells from a constant is none of the protein's.
        constant = scale <= 1e-6 * np.maximum(np.abs(shift + mean), 1e-6)
        scale[constant] = 1
        return (shift + mean).astype(np.float32), scale.astype(np.float32)


def make_features(
    maker: FeatureMaker,
    proteins: Proteins,
    on_step: Callable[[int], object] = lambda residues: None,
) -> FrozenFeatures:
    """The features of all proteins, each distinct one embedded once.

    Args:
        maker: of the features.
        proteins: the proteins.
        on_step: called with a number of residues whenever that many more are done.

    Raises:
        UserError: a protein is too long or no variant of the wild type, the model gives NaN, or
            there is no room for them.
    """
    maker.require(proteins)
    _, places, of_protein = np.unique(proteins.hashes, return_index=True, return_inverse=True)
    counts = maker.rows(proteins.lengths[places].astype(np.int64))
    firsts = np.concatenate([[0], np.cumsum(counts)[:-1]]).astype(np.int64)
    values = _room(int(counts.sum()), maker.inputs)
    at = {int(place): int(first) for place, first in zip(places, firsts, strict=True)}
    for place, rows in maker.stream(proteins, places.tolist()):
        values[at[place] : at[place] + len(rows)] = rows
        on_step(int(proteins.lengths[place]))
    return FrozenFeatures(values, firsts[of_protein], counts[of_protein])


def _room(rows: int, width: int) -> Any:
    size = 4 * rows * width
    if size <= MOST_IN_MEMORY:
        return np.empty((rows, width), np.float32)
    folder = cache_folder()
    free = shutil.disk_usage(folder).free
    if size > free:
        raise DataError(
            f"The embeddings of {rows:,} residues take {size / 1e9:,.1f} GB; {folder} has "
            f"{free / 1e9:,.1f} GB of disk. Give fewer proteins or layers, a smaller model, or "
            f"--level protein."
        )
    with tempfile.TemporaryFile(dir=folder) as file:
        return np.memmap(file, np.float32, "w+", shape=(rows, width))
