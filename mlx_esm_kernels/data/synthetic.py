"""Synthetic protein families, made on the spot, whose entropy floor can be computed.

A family is a model of aligned proteins of one length. Some positions have residue frequencies of
their own and depend on nothing else; others stand in pairs that vary together, as the charged
residues i and i + 4 on one side of a helix do. A protein is drawn by choosing a family, then each
such position and each pair on its own.

So all that a language model can learn is known: how often residues occur, which family a protein
belongs to, what that says about each position, and where to look for a position's partner. The best
answer to a masked residue follows from it by Bayes' rule, and no model can have a lower expected
loss than `SyntheticFamilies.optimal_loss`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from .alphabet import ESM1B, STANDARD_RESIDUES, Alphabet
from .masking import MASK_RATE, TO_TRAIN, Shown
from .proteins import Proteins
from .token_table import build_table

NUM_RESIDUES = len(STANDARD_RESIDUES)
# Observed symbols are the 20 residues and, as number 20, <mask>.
_MASK = NUM_RESIDUES

# Residues per thousand in Swiss-Prot (its release statistics), in the order of STANDARD_RESIDUES.
_PER_THOUSAND = (83, 14, 55, 67, 39, 71, 23, 59, 58, 97, 24, 41, 47, 39, 55, 66, 54, 69, 11, 29)
BACKGROUND = np.array(_PER_THOUSAND) / sum(_PER_THOUSAND)

# Which residue goes with which across a pair: opposite charges, like with like in size or shape.
_MATES = dict(zip("KERDAVILFYSTNQGPHWMC", "EKDRVALIYFTSQNPGWHMC", strict=True))
MATE = np.array([STANDARD_RESIDUES.index(_MATES[residue]) for residue in STANDARD_RESIDUES])

# A pair joins i and i + PAIR_DISTANCE, one turn of a helix apart.
PAIR_DISTANCE = 4


@dataclass(frozen=True)
class Family:
    """One family: what its proteins have at each position. len(family) is its length L.

    Attributes:
        profile: (L, 20) float64, residue frequencies of each position, its pair left aside; the
            order is that of STANDARD_RESIDUES.
        pairs: (P, 2) int64, positions that vary together; no position is in two pairs.
        joints: (P, 20, 20) float64, how often residue a at the first position of a pair comes with
            b at the second; the sums along either axis are that position's profile.
    """

    profile: npt.NDArray[np.float64]
    pairs: npt.NDArray[np.int64]
    joints: npt.NDArray[np.float64]

    def __len__(self) -> int:
        return len(self.profile)

    def draw(self, count: int, rng: np.random.Generator) -> npt.NDArray[np.int64]:
        """(count, L) int64: proteins of the family as places in STANDARD_RESIDUES."""
        drawn = _draw(self.profile, count, rng)
        if len(self.pairs):
            both = _draw(self.joints.reshape(len(self.pairs), -1), count, rng)
            drawn[:, self.pairs[:, 0]], drawn[:, self.pairs[:, 1]] = divmod(both, NUM_RESIDUES)
        return drawn

    def log_probabilities(self, residues: npt.NDArray[np.integer]) -> npt.NDArray[np.float64]:
        """ln P of what proteins have at each position on its own and in each pair.

        Args:
            residues: (N, L) integer, places in STANDARD_RESIDUES.

        Returns:
            (N, L - P) float64, in nats: positions first, then pairs. The sum of a row is ln P of
            the protein among those of the family; -inf stands for what the family never has.
        """
        alone = np.setdiff1d(np.arange(len(self)), self.pairs)
        first, second = self.pairs.T
        with np.errstate(divide="ignore"):
            profile, joints = np.log(self.profile), np.log(self.joints)
        pair = np.arange(len(self.pairs))
        return np.concatenate(
            [
                profile[alone, residues[:, alone]],
                joints[pair, residues[:, first], residues[:, second]],
            ],
            axis=1,
        )

    def without_pairs(self) -> Family:
        """The same frequencies at each position, every position on its own."""
        return Family(self.profile, self.pairs[:0], self.joints[:0])


class SyntheticFamilies:
    """Synthetic proteins, and the best possible predictions of masked residues in them.

    Args:
        families: the families, each as likely as the others.
        num_proteins: proteins to draw.
        seed: of the draw, as numpy.random.default_rng takes it.
        alphabet: gives the residues their ids.

    Attributes:
        proteins: what was drawn, named `synthetic_7 family=2`.
        family_of: (num_proteins,) int64, which family each protein was drawn from.
        families: as given.
    """

    def __init__(
        self,
        families: Sequence[Family],
        num_proteins: int,
        seed: int | Sequence[int],
        alphabet: Alphabet = ESM1B,
    ) -> None:
        self.families, self.alphabet = list(families), alphabet
        rng = np.random.default_rng(seed)
        self.family_of = rng.integers(len(self.families), size=num_proteins)
        drawn = [
            iter(alphabet.amino_acid_ids[family.draw(int((self.family_of == number).sum()), rng)])
            for number, family in enumerate(self.families)
        ]
        self.proteins = Proteins(
            [
                build_table(
                    (f"synthetic_{i} family={number}", next(drawn[number]))
                    for i, number in enumerate(self.family_of.tolist())
                )
            ]
        )

    def optimal_loss(
        self,
        inputs: npt.NDArray[np.integer],
        tokens: npt.NDArray[np.integer],
        segment_ids: npt.NDArray[np.integer],
        is_target: npt.NDArray[np.bool_],
        shown: Shown = TO_TRAIN,
    ) -> tuple[float, int]:
        """What the best possible answers to masked residues cost: the entropy floor.

        Each residue is taken to be a target by a toss of its own. `mask_tokens` draws an exact
        number of them from a whole batch, which tells a model next to nothing about one protein.

        Args:
            inputs: (B, L) token ids that a model would see: cls, corrupted residues, eos for each
                whole protein, as `mask_tokens` makes them.
            tokens: (B, L) token ids before corruption.
            segment_ids: (B, L) integer, 0 = padding; each protein is one run.
            is_target: (B, L) bool, the masked positions.
            shown: what a model sees there, as it was given to `mask_tokens`.

        Returns:
            Sum over the masked positions of -ln P(true residue | inputs), in nats, and how many
            there are.

        Raises:
            ValueError: shapes differ, a protein is of no family's length (a cropped one, say),
                something other than the 20 amino acids is in it, or cls, eos or padding is a
                for.
        """
        if not inputs.shape == tokens.shape == segment_ids.shape == is_target.shape:
            raise ValueError(
                "[optimal_loss] inputs, tokens, segment_ids and is_target must have one shape "
                f"(B, L); got {inputs.shape}, {tokens.shape}, {segment_ids.shape} and "
                f"{is_target.shape}."
            )
        nats, count = 0.0, 0
        for places in self._proteins_by_length(tokens, segment_ids):
            observed = self._symbols(
                inputs.reshape(-1)[places], "inputs", also=[self.alphabet.mask_idx]
            )
            true = self._symbols(tokens.reshape(-1)[places], "tokens")
            which = is_target.reshape(-1)[places]
            answers = posterior(self.families, observed, shown)  # (N, L, 20)
            nats -= float(np.log(answers[which, true[which]]).sum())
            count += int(which.sum())
        if count != is_target.sum():
            raise ValueError(
                "[optimal_loss] only residues may be targets; "
                f"got {int(is_target.sum()) - count} other positions."
            )
        return nats, count

    def _proteins_by_length(
        self, tokens: npt.NDArray[np.integer], segment_ids: npt.NDArray[np.integer]
    ) -> list[npt.NDArray[np.int64]]:
        """For each length n that occurs, (N, n): where the residues are in the flattened batch."""
        left = np.pad(segment_ids, ((0, 0), (1, 0)))[:, :-1]
        right = np.pad(segment_ids, ((0, 0), (0, 1)))[:, 1:]
        first = np.flatnonzero((segment_ids != 0) & (segment_ids != left))
        last = np.flatnonzero((segment_ids != 0) & (segment_ids != right))
        flat = tokens.reshape(-1)
        lengths = last - first + 1 - self.alphabet.num_specials
        known = {len(family) for family in self.families}
        found = set(lengths.tolist())
        if (
            not found <= known
            or (self.alphabet.prepend_cls and (flat[first] != self.alphabet.cls_idx).any())
            or (self.alphabet.append_eos and (flat[last] != self.alphabet.eos_idx).any())
        ):
            raise ValueError(
                "[optimal_loss] every segment must be a whole protein, cls ... eos, of a length "
                f"in {sorted(known)}; got lengths {sorted(found)}. Rows shorter than the longest "
                "protein crop it, and the floor of a cropped protein is not known."
            )
        first = first + int(self.alphabet.prepend_cls)
        return [first[lengths == n, None] + np.arange(n) for n in sorted(found)]

    def _symbols(
        self, ids: npt.NDArray[np.integer], name: str, also: Sequence[int] = ()
    ) -> npt.NDArray[np.int64]:
        """Token ids as places in STANDARD_RESIDUES, and as 20 those of `also`."""
        symbol_of = np.full(len(self.alphabet), -1)
        symbol_of[self.alphabet.amino_acid_ids] = np.arange(NUM_RESIDUES)
        symbol_of[list(also)] = _MASK
        symbols: npt.NDArray[np.int64] = symbol_of[ids]
        if (symbols < 0).any():
            wrong = self.alphabet.tokens[ids[symbols < 0][0]]
            allowed = "".join(f" and {self.alphabet.tokens[i]}" for i in also)
            raise ValueError(
                f"[optimal_loss] {name} must hold the 20 amino acids{allowed} between cls and eos; "
                f"got {wrong}."
            )
        return symbols


def make_sample(
    seed: int = 0,
    *,
    num_proteins: int = 24_000,
    num_families: int = 4,
    shortest: int = 24,
    longest: int = 36,
    alphabet: Alphabet = ESM1B,
) -> SyntheticFamilies:
    """Synthetic families and proteins of them; the same seed gives the same ones.

    With its defaults a small model nears the floor in about a million tokens, and passes three
    landmarks on the way: residue frequencies, the families' profiles, and the pairs.

    Args:
        seed: a whole number, not negative.
        num_proteins: proteins to draw, at least 1.
        num_families: families, at least 1; as equally spaced in length as whole numbers can be.
        shortest, longest: residues of the shortest and the longest family.
        alphabet: gives the residues their ids.

    Raises:
        ValueError: a number is out of range.
    """
    if seed < 0 or num_proteins < 1 or num_families < 1 or not 1 <= shortest <= longest:
        raise ValueError(
            "[make_sample] expected seed >= 0, num_proteins >= 1, num_families >= 1 and "
            f"1 <= shortest <= longest; got {seed}, {num_proteins}, {num_families} and "
            f"{shortest}, {longest}."
        )
    rng = np.random.default_rng([seed, 0])
    lengths = np.linspace(shortest, longest, num_families).round().astype(int)
    families = [make_family(int(length), rng) for length in lengths]
    return SyntheticFamilies(families, num_proteins, [seed, 1], alphabet)


def make_family(
    length: int,
    rng: np.random.Generator,
    *,
    conserved: float = 4.0,
    paired: float = 0.5,
    loyalty: float = 0.9,
) -> Family:
    """A family at random.

    Args:
        length: L, its positions.
        rng: the source of chance.
        conserved: how alike the positions outside pairs are to the family's composition: a
            Dirichlet's concentration, where less gives fewer residues a chance.
        paired: share of the positions that stand in pairs, about.
        loyalty: how often the second of a pair is the mate of the first (`MATE`) rather than
            drawn on its own.
    """
    composition = rng.dirichlet(30.0 * BACKGROUND)
    profile = np.stack([rng.dirichlet(conserved * composition + 1e-3) for _ in range(length)])
    block = np.arange(length - PAIR_DISTANCE)
    first = block[block % (2 * PAIR_DISTANCE) < PAIR_DISTANCE]
    first = np.sort(rng.permutation(first)[: round(paired * length / 2)])
    pairs = np.stack([first, first + PAIR_DISTANCE], axis=1)
    joints = np.empty((len(pairs), NUM_RESIDUES, NUM_RESIDUES))
    for joint, (i, j) in zip(joints, pairs, strict=True):
        profile[i] = rng.dirichlet(20.0 * BACKGROUND)
        profile[j] = profile[i][MATE]  # MATE is its own inverse
        # J(a, b) = p_i(a) (loyalty [b = mate of a] + (1 - loyalty) p_j(b)) has both as its sums.
        joint[:] = loyalty * np.eye(NUM_RESIDUES)[MATE] + (1 - loyalty) * profile[j]
        joint *= profile[i][:, None]
    return Family(profile, pairs, joints)


def posterior(
    families: Sequence[Family], observed: npt.NDArray[np.integer], shown: Shown = TO_TRAIN
) -> npt.NDArray[np.float64]:
    """The probability of each true residue, given a corrupted protein, at a masked position.

    With x the true protein and y what is observed, each residue masked with probability
    MASK_RATE, and C(y_j | x_j) the chance of y_j at a position that may or may not be masked,
    A(y_i | x_i) at one that is:

        P(x_i = a | y, i is masked) ~ A(y_i | a) sum_k W_ki g_ki(a)
        g_ki(a) = p_ki(a)                       for a position on its own,
                  sum_b J_k(a, b) C(y_j | b)    for one with partner j: the pair up to y_i
        W_ki = the product of P_k(y_u) over the family's positions and pairs u without i

    Every family is as likely as the others, and one of another length is impossible.

    Args:
        families: at least one of length L.
        observed: (N, L) integer, places in STANDARD_RESIDUES, 20 for <mask>.
        shown: what is observed at a masked position.

    Returns:
        (N, L, 20) float64; the last axis sums to 1, or is 0 where a masked position cannot be
        `observed` so.
    """
    maybe, masked = _channel(shown)
    evidence = maybe[observed]  # (N, L, 20): C(y_j | b)
    fitting = [family for family in families if len(family) == observed.shape[1]]
    messages = np.empty((len(fitting), *evidence.shape))
    others = np.empty((len(fitting), *observed.shape))
    for k, family in enumerate(fitting):
        first, second = family.pairs.T
        messages[k] = family.profile
        messages[k][:, first] = np.einsum("pab,npb->npa", family.joints, evidence[:, second])
        messages[k][:, second] = np.einsum("pab,npa->npb", family.joints, evidence[:, first])
        # For either position of a pair this is the logarithm of the pair's probability.
        log_units = np.log((messages[k] * evidence).sum(axis=-1))  # (N, L)
        total = log_units.sum(axis=-1) - log_units[:, second].sum(axis=-1)  # each pair once
        others[k] = total[:, None] - log_units
    weights = np.exp(others - others.max(axis=0))
    answers = np.einsum("knl,knla->nla", weights, messages) * masked[observed]
    total = answers.sum(axis=-1, keepdims=True)
    normalised: npt.NDArray[np.float64] = np.zeros_like(answers)
    np.divide(answers, total, out=normalised, where=total > 0)
    return normalised


def _channel(shown: Shown) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
    """(21, 20) each, P(observed | true): where a residue may be masked, and where it is."""
    same = np.eye(NUM_RESIDUES)
    masked = np.vstack(
        [
            shown.as_itself * same + shown.as_random / NUM_RESIDUES,
            np.full((1, NUM_RESIDUES), shown.as_mask),
        ]
    )
    not_masked = np.vstack([same, np.zeros((1, NUM_RESIDUES))])
    return MASK_RATE * masked + (1 - MASK_RATE) * not_masked, masked


def _draw(
    probabilities: npt.NDArray[np.float64], count: int, rng: np.random.Generator
) -> npt.NDArray[np.int64]:
    """(count, R) int64: for each row of (R, S) probabilities, `count` draws from [0, S)."""
    edges = probabilities.cumsum(axis=1)
    edges /= edges[:, -1:]
    chance = rng.random((count, len(edges)))
    return np.stack(
        [np.searchsorted(row, u, side="right") for row, u in zip(edges, chance.T, strict=True)],
        axis=1,
    )
