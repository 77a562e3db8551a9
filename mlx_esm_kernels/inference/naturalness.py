"""Whether proteins look like natural ones: what they are made of, their relatives, and how likely a
model finds them."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from ..data.alphabet import Alphabet
from ..data.composition import ProteinCounts, count_proteins
from ..data.frequencies import MAX_COUNTED_PROTEINS, sampled
from ..data.natural_range import Comparison, compare
from ..data.nearest import Relative, letters, nearest
from ..data.proteins import Places, Proteins
from ..data.similar_lengths import SimilarLengths
from ..data.targets import symbols
from ..models.esm1 import ESM1
from ..system.console import progress
from ..system.errors import DataError
from .clustered import Mean, clustered_mean
from .variants import marginals

# A relative counts as one if at least this share of the protein's residues is aligned with it.
LEAST_COVERAGE = 0.5
# Residues of a protein that a model is asked for. Between proteins the mean differs more than it is
# uncertain in one of them by so many.
POSITIONS = 48


@dataclass(frozen=True)
class Likelihood:
    """How likely a model finds some proteins.

    Attributes:
        nats: mean of -ln p(residue | all the others) over the residues that were asked for.
        by_protein: the pseudo-perplexity of each protein, by its own residues.
    """

    nats: Mean
    by_protein: list[float]

    @property
    def perplexity(self) -> float:
        """exp(nats); inf from 700 nats."""
        return math.exp(self.nats.value) if self.nats.value < 700 else math.inf


@dataclass(frozen=True)
class Likelihoods:
    """Proteins in the eyes of a model, between natural ones and those with their residues shuffled.

    Attributes:
        generated, natural, shuffled: about as many proteins of each.
        shuffling: nats that the same natural ones have more once they are shuffled.
    """

    generated: Likelihood
    natural: Likelihood
    shuffled: Likelihood
    shuffling: Mean

    @property
    def place(self) -> float | None:
        """How far the generated ones are from natural (0) to shuffled (1); None where the model
        does not tell these apart by three standard errors."""
        if self.shuffling.error is None or self.shuffling.value < 3 * self.shuffling.error:
            return None
        return self.beyond_natural.value / self.shuffling.value

    @property
    def beyond_natural(self) -> Mean:
        """Nats that the generated ones have more than natural ones."""
        return _difference(self.generated, self.natural)

    @property
    def before_shuffled(self) -> Mean:
        """Nats that shuffled ones have more than the generated ones."""
        return _difference(self.shuffled, self.generated)


@dataclass(frozen=True)
class Kinship:
    """The nearest relatives of some proteins.

    Attributes:
        relatives: of each protein that was aligned; None where it has none.
    """

    relatives: list[Relative | None]

    @property
    def identities(self) -> list[float]:
        """Of each protein, 0 where it has no relative."""
        return [0.0 if one is None else one.identity for one in self.relatives]

    @property
    def median_identity(self) -> float:
        return float(np.median(self.identities))

    @property
    def median_coverage(self) -> float:
        return float(np.median([0.0 if one is None else one.coverage for one in self.relatives]))

    def above(self, identity: float) -> int:
        """How many have a relative of more than this identity and half coverage."""
        return sum(
            one is not None and one.identity > identity and one.coverage >= LEAST_COVERAGE
            for one in self.relatives
        )


@dataclass(frozen=True)
class Naturalness:
    """How natural generated proteins look.

    Attributes:
        generated, natural: the counts of each protein; of very many natural ones a random 50,000.
            Proteins without any of the 20 residues are left out.
        num_natural: how many natural proteins there are.
        comparison: what they are made of.
        copies: how many generated proteins are the same as a natural one.
        to_natural: the nearest natural proteins of a sample of the generated ones.
        natural_to_natural: of natural ones of about their lengths, among all other natural ones;
            None where there is but one.
        twins, natural_twins: the nearest ones in their own set, of the same number of proteins;
            None where that has but one.
        likelihoods: where there is a model.
        seed: of all that is drawn.
    """

    generated: ProteinCounts
    natural: ProteinCounts
    num_natural: int
    comparison: Comparison
    copies: int
    to_natural: Kinship
    natural_to_natural: Kinship | None
    twins: Kinship | None
    natural_twins: Kinship | None
    likelihoods: Likelihoods | None
    seed: int


def assess(
    generated: Proteins,
    natural: Proteins,
    alphabet: Alphabet,
    *,
    model: ESM1 | None = None,
    sample: int = 64,
    seed: int = 42,
) -> Naturalness:
    """Compare generated proteins with natural ones.

    Args:
        generated, natural: at least one protein each.
        alphabet: of their ids.
        model: whose opinion is asked too; one that did not generate them says more.
        sample: proteins that are aligned and, of each kind, shown to the model; of more, random
            ones. All else is of all proteins.
        seed: of what is drawn.

    Raises:
        DataError: there is none of the 20 amino acids in one of the sets.
        UserError: the model has no language head, or gives NaN.
    """
    counts, places = _count({"generated": generated, "natural": natural}, alphabet)
    comparison = compare(counts[0], counts[1], seed)
    rng = np.random.default_rng([seed, 1])
    chosen = np.sort(rng.permutation(places[0])[:sample])
    similar = SimilarLengths(counts[1].lengths, counts[0].lengths, comparison.size or 1)
    natural_set = places[1][similar.draw(rng)]
    kinships = _kinships(generated, natural, chosen, natural_set, sample, alphabet)
    likelihoods = None
    if model is not None:
        texts = [letters(generated[i], alphabet) for i in chosen.tolist()]
        naturals = [letters(natural[i], alphabet) for i in natural_set[:sample].tolist()]
        likelihoods = _likelihoods(model, texts, naturals, rng)
    return Naturalness(
        generated=counts[0],
        natural=counts[1],
        num_natural=len(natural),
        comparison=comparison,
        copies=_copies(generated, natural),
        likelihoods=likelihoods,
        seed=seed,
        **kinships,
    )


def _count(
    sets: dict[str, Proteins], alphabet: Alphabet
) -> tuple[list[ProteinCounts], list[Places]]:
    """The counts of each set, and of which proteins they are: all that have a standard residue."""
    found: list[ProteinCounts] = []
    places: list[Places] = []
    total = sum(min(len(proteins), MAX_COUNTED_PROTEINS) for proteins in sets.values())
    with progress(total=total, desc="🔍 counting", unit="protein") as bar:
        for what, proteins in sets.items():
            indices = np.arange(len(proteins))
            indices = sampled(indices) if what == "natural" else indices
            counts = count_proteins(proteins, indices, alphabet, bar.update)
            has_any = counts.residues.any(axis=1)
            if not has_any.any():
                raise DataError(f"The {what} proteins have none of the 20 amino acids in them.")
            found.append(counts.of(np.flatnonzero(has_any)))
            places.append(indices[has_any])
    return found, places


def _kinships(
    generated: Proteins,
    natural: Proteins,
    chosen: Places,
    natural_set: Places,
    sample: int,
    alphabet: Alphabet,
) -> dict[str, Any]:
    """The four fields of `Naturalness`; those that have nothing to align with are None."""
    few = natural_set[:sample]
    everything = np.arange(len(natural))
    pairs = {
        "to_natural": (generated, chosen, natural, everything),
        "natural_to_natural": (natural, few, natural, everything),
        "twins": (generated, chosen, generated, np.arange(len(generated))),
        "natural_twins": (natural, few, natural, natural_set),
    }
    found: dict[str, Any] = dict.fromkeys(pairs)
    with progress(total=2 * (len(chosen) + len(few)), desc="🧬 aligning", unit="protein") as bar:
        for name, (proteins, indices, among, places) in pairs.items():
            if len(places) > 1 or among is not proteins:
                relatives = nearest(proteins, indices, among, places, alphabet, bar.update)
                found[name] = Kinship(relatives)
    return found


def _copies(generated: Proteins, natural: Proteins) -> int:
    is_copy = np.zeros(len(generated), dtype=bool)
    for block in natural.hash_blocks():
        is_copy |= np.isin(generated.hashes, block)
    return int(is_copy.sum())


def _likelihoods(
    model: ESM1, generated: list[str], natural: list[str], rng: np.random.Generator
) -> Likelihoods:
    shuffled = ["".join(rng.permutation(list(text))) for text in natural]
    groups = (generated, natural, shuffled)
    with progress(total=sum(map(len, groups)), desc="🔍 asking", unit="protein") as bar:
        values: list[list[npt.NDArray[np.float64]]] = [[], [], []]
        for texts, found in zip(groups, values, strict=True):
            for text in texts:
                found.append(_nats(model, text, rng))
                bar.update(1)
    apart = [after - before for before, after in zip(values[1], values[2], strict=True)]
    by_group = [_likelihood(some) for some in values]
    return Likelihoods(by_group[0], by_group[1], by_group[2], _likelihood(apart).nats)


def _nats(model: ESM1, text: str, rng: np.random.Generator) -> npt.NDArray[np.float64]:
    """-ln p of some residues, each masked in turn; longer proteins are seen in windows."""
    ids = model.alphabet.encode(text)
    standard = np.flatnonzero(symbols(model.alphabet)[ids] >= 0)
    positions = np.sort(rng.permutation(standard)[:POSITIONS])
    found = marginals(model, text, positions, masked=True, long="window")
    nats: npt.NDArray[np.float64] = -found[np.arange(len(positions)), ids[positions]]
    return nats


def _likelihood(values: list[npt.NDArray[np.float64]]) -> Likelihood:
    owners = np.repeat(np.arange(len(values)), [len(some) for some in values])
    by_protein = [math.exp(min(float(some.mean()), 700.0)) for some in values]
    return Likelihood(clustered_mean(np.concatenate(values), owners), by_protein)


def _difference(one: Likelihood, other: Likelihood) -> Mean:
    errors = one.nats.error, other.nats.error
    value = one.nats.value - other.nats.value
    if errors[0] is None or errors[1] is None:
        return Mean(value, None)
    return Mean(value, math.hypot(errors[0], errors[1]))
