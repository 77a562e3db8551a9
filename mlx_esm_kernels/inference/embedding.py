"""Embeddings of proteins: what a model's layers hold, a vector a residue or a protein.

Proteins stand side by side in one row without padding, told apart by segment ids; what comes out
is what each would give alone, up to rounding.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeVar

import mlx.core as mx
import numpy as np
import numpy.typing as npt

from ..data.alphabet import warn_unknown
from ..data.residues import as_text, listed, without_stop
from ..models.contact_head import require_contact_head
from ..models.esm1 import ESM1
from ..system.errors import UserError
from .contacts import contact_map
from .likelihood import TOKENS_PER_PASS
from .requirements import (
    LONGS,
    WINDOWS_ADVICE,
    Long,
    require_finite,
    require_room,
    seen_at_once,
    warn_long,
)
from .windows import Window, tile

INCLUDES = ("mean", "per-residue", "bos", "contacts")
LONG_ADVICE = f"{WINDOWS_ADVICE}, or leave it out"

Ids = npt.NDArray[np.integer[Any]]
_Item = TypeVar("_Item")


@dataclass
class Embedding:
    """One protein's embedding; what was not wanted is empty, or None.

    Attributes:
        mean: {layer: (C,)}, the mean over the residues (cls and eos left out), taken in float32.
        per_residue: {layer: (residues, C)}.
        bos: {layer: (C,)}, the vector at cls; of a protein in windows, the mean of theirs.
        contacts: (residues, residues) float32, contact probabilities.
    """

    mean: dict[int, mx.array] = field(default_factory=dict)
    per_residue: dict[int, mx.array] = field(default_factory=dict)
    bos: dict[int, mx.array] = field(default_factory=dict)
    contacts: mx.array | None = None


class Embedder:
    """A model and what is wanted of it.

    Args:
        model: the model.
        layers: 0 is the embedding, i the output of layer i, -1 the last layer's.
        include: which of `INCLUDES`.
        long: what becomes of a protein with more than `model.config.trained_residues` residues.
            "error": it is refused where the position table ends there, and taken whole where there
            is none. "window": it is seen in windows that overlap by a quarter or more, and each
            residue is taken from the window in which it is farther from the nearest end. A pair
            of residues has the mean contact of the windows that see both, and 0 where none does.
        tokens_per_pass: about how many tokens one forward pass has.

    Attributes:
        layers: tuple of int, ascending, none negative.
        include: frozenset of str. long: str.

    Raises:
        UserError: one of them is not to be had from this model.
    """

    def __init__(
        self,
        model: ESM1,
        *,
        layers: Collection[int] = (-1,),
        include: Collection[str] = ("mean",),
        long: Long = "error",
        tokens_per_pass: int = TOKENS_PER_PASS,
    ) -> None:
        self.model, self.alphabet = model, model.alphabet
        self.layers = _layers(layers, model.config.num_layers)
        self.include = frozenset(include)
        self.long = long
        self.tokens_per_pass = tokens_per_pass
        if not self.include or not self.include <= set(INCLUDES):
            raise UserError(f"[embed] include must be some of {INCLUDES}; got {tuple(include)}.")
        if long not in LONGS:
            raise UserError(f"[embed] long must be one of {LONGS}; got {long!r}.")
        if "contacts" in self.include:
            require_contact_head(model.config)
        if "bos" in self.include and not self.alphabet.prepend_cls:
            raise UserError("[embed] this model's alphabet puts no cls before a protein: no bos.")

    def require_length(self, label: str, residues: int) -> None:
        """Raise UserError, which calls it `label`, where a protein of this length is refused."""
        if residues < 1:
            raise UserError(f"{label} has no residues.")
        if self.long == "error":
            require_room(self.model, residues, label, LONG_ADVICE)

    def groups(
        self, proteins: Iterable[_Item], length: Callable[[_Item], int]
    ) -> Iterator[list[_Item]]:
        """Proteins in order, as many at a time as go through the model together.

        Args:
            proteins: anything that stands for a protein.
            length: its residues.

        Yields:
            Lists of them. Where a list ends depends on the lengths alone, and not on what is
            before a list's first protein: to begin there gives the same lists.
        """
        group: list[_Item] = []
        tokens = 0
        for protein in proteins:
            size = length(protein) + self.alphabet.num_specials
            if group and tokens + size > self.tokens_per_pass:
                yield group
                group, tokens = [], 0
            group.append(protein)
            tokens += size
        if group:
            yield group

    def run(self, proteins: Sequence[Ids]) -> list[Embedding]:
        """The embeddings of a group of proteins, evaluated.

        Args:
            proteins: (residues,) ids of each, without cls and eos.

        Raises:
            UserError: the model gives NaN or infinity.
        """
        found = [Embedding() for _ in proteins]
        if self.include - {"contacts"}:
            found = self._from_layers(proteins)
        if "contacts" in self.include:
            for embedding, ids in zip(found, proteins, strict=True):
                embedding.contacts = contact_map(self.model, ids, self.long)
        return found

    def _from_layers(self, proteins: Sequence[Ids]) -> list[Embedding]:
        most = seen_at_once(self.model.config, self.long)
        pieces = [
            _Piece(place, window, ids)
            for place, ids in enumerate(proteins)
            for window in tile(len(ids), most)
        ]
        parts: list[list[tuple[int, Embedding]]] = [[] for _ in proteins]
        for some in self.groups(pieces, lambda piece: piece.window.end - piece.window.start):
            for piece, part in zip(some, self._run_pass(some), strict=True):
                kept = piece.window.keep_end - piece.window.keep_start
                parts[piece.place].append((kept, part))
        dtype = self.model.embed_tokens.weight.dtype
        return [_joined(some, dtype) for some in parts]

    def _run_pass(self, pieces: list[_Piece]) -> list[Embedding]:
        """What one forward pass gives to each piece, evaluated; means are float32 still."""
        rows = [self.alphabet.with_specials(piece.seen) for piece in pieces]
        ends = np.cumsum([len(row) for row in rows])
        segment_ids = np.repeat(
            np.arange(1, len(rows) + 1, dtype=np.int32), [len(row) for row in rows]
        )
        representations = self.model(
            mx.array(np.concatenate(rows)[None]),
            mx.array(segment_ids[None]),
            repr_layers=self.layers,
        )["representations"]
        found = [Embedding() for _ in pieces]
        finite = mx.array(True)
        for layer in self.layers:
            x = representations[layer][0]  # (tokens, C)
            finite = mx.logical_and(finite, mx.isfinite(x).all())
            for piece, embedding, row, end in zip(pieces, found, rows, ends.tolist(), strict=True):
                cls, window = end - len(row), piece.window
                first = cls + self.alphabet.residue_slice.start - window.start
                kept = x[first + window.keep_start : first + window.keep_end]
                if "mean" in self.include:
                    embedding.mean[layer] = kept.astype(mx.float32).mean(axis=0)
                if "per-residue" in self.include:
                    embedding.per_residue[layer] = kept
                if "bos" in self.include:
                    embedding.bos[layer] = x[cls]
        mx.eval(finite, [(e.mean, e.per_residue, e.bos) for e in found])
        require_finite(finite, self.model.embed_tokens.weight.dtype)
        return found


def embed(
    model: ESM1,
    sequences: Iterable[str],
    *,
    layers: Collection[int] = (-1,),
    include: Collection[str] = ("mean",),
    long: Long = "error",
) -> Iterator[Embedding]:
    """The embedding of each sequence, in order, made a few thousand residues at a time.

    Args:
        model: of `load_model`.
        sequences: one letter per residue, or Biopython's; read as they are needed, so there may be
            any number. A stop (*) at an end is left out; other characters that are no residues are
            read as `<unk>`, and one warning lists them.
        layers, include, long: see `Embedder`.

    Returns:
        An iterator of `Embedding`; its arrays are in the dtype of the model and evaluated.

    Raises:
        ValueError: `layers`, `include` or `long` do not fit the model (at once); a sequence is
            empty or too long, or the model gives NaN (when that sequence's turn comes).
    """
    if not isinstance(model, ESM1):
        raise TypeError(
            f"[embed] expected a model, of load_model or ESM1; got a {type(model).__name__}."
        )
    embedder = Embedder(model, layers=layers, include=include, long=long)
    return _stream(embedder, listed(sequences, "[embed] sequences"))


def _stream(embedder: Embedder, sequences: Iterable[str]) -> Iterator[Embedding]:
    unknown: Counter[str] = Counter()
    trained = embedder.model.config.trained_residues
    long_ones: list[int] = []

    def encoded() -> Iterator[Ids]:
        for number, sequence in enumerate(sequences, start=1):
            where = f"[embed] sequence {number}"
            text = without_stop(as_text(sequence, where))
            ids = embedder.alphabet.encode(text, unknown)
            embedder.require_length(where, len(ids))
            if embedder.long == "error" and len(ids) > trained:
                long_ones.append(len(ids))
            yield ids

    try:
        for group in embedder.groups(encoded(), len):
            yield from embedder.run(group)
    finally:
        warn_unknown(unknown)
        warn_long(embedder.model, np.array(long_ones, np.int64), WINDOWS_ADVICE)


@dataclass(frozen=True)
class _Piece:
    """One window of the protein that is number `place` of its group."""

    place: int
    window: Window
    ids: Ids  # of the whole protein

    @property
    def seen(self) -> Ids:
        return self.ids[self.window.start : self.window.end]


def _joined(parts: list[tuple[int, Embedding]], dtype: mx.Dtype) -> Embedding:
    """One protein's embedding from those of its windows, each with its number of residues."""
    total = sum(count for count, _ in parts)
    whole = Embedding()
    for layer in parts[0][1].mean:
        mean = sum((count / total) * part.mean[layer] for count, part in parts)
        whole.mean[layer] = mx.array(mean).astype(dtype)
    for layer in parts[0][1].per_residue:
        whole.per_residue[layer] = mx.concatenate([part.per_residue[layer] for _, part in parts])
    for layer in parts[0][1].bos:
        bos = mx.stack([part.bos[layer] for _, part in parts]).astype(mx.float32)
        whole.bos[layer] = bos.mean(axis=0).astype(dtype)
    mx.eval(whole.mean, whole.per_residue, whole.bos)
    return whole


def _layers(layers: Collection[int], num_layers: int) -> tuple[int, ...]:
    wrong = [layer for layer in layers if not -num_layers - 1 <= layer <= num_layers]
    if wrong or not layers:
        raise UserError(
            f"[embed] layers must be from {-num_layers - 1} to {num_layers}, at least one; "
            f"got {', '.join(map(str, wrong)) or 'none'}."
        )
    return tuple(sorted({layer % (num_layers + 1) for layer in layers}))
