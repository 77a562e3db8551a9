"""Which residues of given proteins a model is measured on: a fixed draw of masks.

The draw of a protein depends on its own residues and a fixed seed, and on nothing else: not on the
model and its alphabet, on the other proteins, their order, or how they are packed.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from ..system.console import progress
from ..system.errors import DataError
from .alphabet import STANDARD_RESIDUES, Alphabet
from .masking import MASK_RATE
from .proteins import Proteins

MASK_SEED = 20_240_229
ENOUGH_TARGETS = 10_000  # perplexity known to about 1 %
# Every residue of a protein but a tenth is a target once; more draws are of the same residues.
MOST_DRAWS_UNASKED = 6


@dataclass(frozen=True)
class Targets:
    """Masked residues of proteins: T of them, in masked copies of P proteins.

    A copy is one protein with some of its residues masked. The copies of the first draw come first,
    and within a draw the proteins are in an order that is random and fixed.

    Attributes:
        proteins, alphabet: where the residues are, and what their ids mean.
        indices: (P,) int64, the proteins that are measured, each distinct one once.
        draws: copies of each protein.
        copies: (C,) int64, the protein of each copy, as a place in `indices`.
        offsets: (C + 1,) int64; copy c has the targets [offsets[c], offsets[c + 1]).
        positions: (T,) int32, which residue of its protein a target is; ascending in a copy.
        residues: (T,) int8, what it is, as a place in `STANDARD_RESIDUES`.
    """

    proteins: Proteins
    alphabet: Alphabet
    indices: npt.NDArray[np.int64]
    draws: int
    copies: npt.NDArray[np.int64]
    offsets: npt.NDArray[np.int64]
    positions: npt.NDArray[np.int32]
    residues: npt.NDArray[np.int8]

    def __len__(self) -> int:
        return len(self.positions)

    @property
    def owners(self) -> npt.NDArray[np.int64]:
        """(T,) the protein of each target, as a place in `indices`."""
        return np.repeat(self.copies, np.diff(self.offsets))

    @property
    def lengths(self) -> npt.NDArray[np.int64]:
        """(T,) residues of each target's protein."""
        return self.proteins.lengths[self.indices[self.owners]].astype(np.int64)

    def of_copy(self, copy: int) -> slice:
        """Where the targets of a copy are."""
        return slice(int(self.offsets[copy]), int(self.offsets[copy + 1]))

    def ids(self, copy: int) -> npt.NDArray[np.uint8]:
        """The residue ids of a copy's protein, nothing masked."""
        return self.proteins[int(self.indices[self.copies[copy]])]

    def first(self, num_copies: int) -> Targets:
        """The first copies alone."""
        end = int(self.offsets[num_copies])
        return replace(
            self,
            copies=self.copies[:num_copies],
            offsets=self.offsets[: num_copies + 1],
            positions=self.positions[:end],
            residues=self.residues[:end],
        )


@dataclass(frozen=True)
class Answers:
    """What somebody said of T targets.

    Attributes:
        nats: (T,) float64, -ln p of the true residue.
        is_right: (T,) bool, whether that was the likeliest of the 20.
    """

    nats: npt.NDArray[np.float64]
    is_right: npt.NDArray[np.bool_]

    @classmethod
    def of(
        cls, log_probabilities: npt.NDArray[np.float64], residues: npt.NDArray[np.int8]
    ) -> Answers:
        """From ln p of the 20 residues (T, 20), and the true ones (T,)."""
        nats = -log_probabilities[np.arange(len(residues)), residues]
        return cls(nats, log_probabilities.argmax(axis=1) == residues)

    @classmethod
    def joined(cls, parts: Sequence[Answers]) -> Answers:
        """Those of the targets of all parts, one after the other."""
        return cls(
            np.concatenate([part.nats for part in parts]),
            np.concatenate([part.is_right for part in parts]),
        )


def draw_targets(
    proteins: Proteins,
    indices: npt.ArrayLike,
    alphabet: Alphabet,
    draws: int | None = None,
) -> Targets:
    """The targets of some proteins.

    In each draw 15 % of a protein's standard amino acids are targets, rounded, and at least one.
    The first six draws or so of a protein have no residue in common.

    Args:
        proteins: where the residues are.
        indices: (N,) which of them; of proteins that are the same one is taken.
        alphabet: of their ids.
        draws: how many draws, at least 1; None: as many as give 10,000 targets, from 1 to 6.

    Raises:
        DataError: there is no target.
        ValueError: `draws` is below 1.
    """
    if draws is not None and draws < 1:
        raise ValueError(f"[draw_targets] draws must be at least 1; got {draws}.")
    given = np.asarray(indices, dtype=np.int64)
    # In the order of their hashes, which is random and no file's.
    _, first = np.unique(proteins.hashes[given], return_index=True)
    chosen = given[first]
    symbol_of, letter_of = symbols(alphabet), _letters(alphabet)
    reading = progress(chosen.tolist(), desc="🔍 reading proteins", unit="protein")
    found = [symbol_of[proteins[index]] for index in reading]
    per_draw = sum(_count(int((some >= 0).sum())) for some in found)
    if not per_draw:
        raise DataError(
            "The proteins have none of the 20 amino acids, so there is nothing to measure a model "
            "on: give other proteins, or more of them."
        )
    if draws is None:
        draws = min(max(1, math.ceil(ENOUGH_TARGETS / per_draw)), MOST_DRAWS_UNASKED)
    drawing = progress(chosen.tolist(), desc="🔍 drawing masks", unit="protein")
    drawn = [
        list(_draw(np.flatnonzero(some >= 0), letter_of[proteins[index]].tobytes(), draws))
        for index, some in zip(drawing, found, strict=True)
    ]
    places = np.flatnonzero([bool(some) for some in drawn])
    copies = np.tile(places, draws)
    parts = [drawn[place][draw] for draw in range(draws) for place in places.tolist()]
    return Targets(
        proteins,
        alphabet,
        chosen,
        draws,
        copies,
        np.cumsum([0, *map(len, parts)]),
        np.concatenate(parts).astype(np.int32),
        np.concatenate(
            [found[place][part] for place, part in zip(copies.tolist(), parts, strict=True)]
        ),
    )


def symbols(alphabet: Alphabet) -> npt.NDArray[np.int8]:
    """(256,) int8: the place of each token id in `STANDARD_RESIDUES`, -1 for all others."""
    symbol_of = np.full(256, -1, dtype=np.int8)
    symbol_of[alphabet.amino_acid_ids] = np.arange(len(STANDARD_RESIDUES))
    return symbol_of


def _letters(alphabet: Alphabet) -> npt.NDArray[np.uint8]:
    """(256,) uint8: the letter of each token id, the same in any alphabet; ? for all others."""
    letter_of = np.full(256, ord("?"), dtype=np.uint8)
    for i, token in enumerate(alphabet.tokens):
        if len(token) == 1 and token.isascii():
            letter_of[i] = ord(token)
    return letter_of


def _count(candidates: int) -> int:
    """How many of a protein's standard residues are targets in one draw."""
    return max(1, round(MASK_RATE * candidates)) if candidates else 0


def _draw(
    candidates: npt.NDArray[np.int64], letters: bytes, draws: int
) -> Iterator[npt.NDArray[np.int64]]:
    """The positions of each draw, ascending: parts of one order of the candidates, then another."""
    count = _count(len(candidates))
    if not count:
        return
    digest = hashlib.blake2b(letters, digest_size=8, key=str(MASK_SEED).encode()).digest()
    rng = np.random.default_rng(int.from_bytes(digest, "little"))
    while True:
        order = rng.permutation(candidates)
        for part in range(len(order) // count):
            yield np.sort(order[part * count : (part + 1) * count])
            draws -= 1
            if not draws:
                return
