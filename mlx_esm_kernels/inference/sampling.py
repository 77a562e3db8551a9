"""How proteins are drawn from a model: the settings, and which sampler suits which model.

`filling.fill_masks` carries them out. A model is asked for residues given others, and what it was
trained on says at which share of masks its answers mean something: see docs/generating.md.
"""

from __future__ import annotations

import dataclasses
import math
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal, get_args

import numpy as np

from ..models.esm1 import ESM1
from ..system.errors import UserError
from .likelihood import Tokens

Sampler = Literal["auto", "unmask", "gibbs"]
SAMPLERS: tuple[Sampler, ...] = get_args(Sampler)
Order = Literal["left-to-right", "confident", "random"]
ORDERS: tuple[Order, ...] = get_args(Order)
Schedule = Literal["linear", "cosine"]
SCHEDULES: tuple[Schedule, ...] = get_args(Schedule)

ROUNDS = 20
BLOCK = 0.1
# 4 in 1,000 proteins of 150 to 260 residues have a longer run (archaea and mitochondria in
# Swiss-Prot), 15 in 1,000 one of 5.
LONGEST_RUN = 5
# Where 15 % of a batch are masked, single proteins have up to about this share of masks.
_MOST_MASKED = 0.25

_MOST_BLOCKS = 1e9  # more than any protein has residues

_OF_UNMASK = ("order", "steps", "schedule")
_OF_GIBBS = ("rounds", "block", "burn_in")


class SamplerWarning(UserWarning):
    """A model is asked for residues at a share of masks that it was not trained on."""


@dataclass(frozen=True)
class Sampling:
    """How residues are drawn.

    Attributes:
        sampler: "unmask" fills masks, each of which stays as it was filled; "gibbs" starts from
            residues drawn by their natural frequencies and redraws them block by block; "auto"
            is what suits the model (`settled`).
        temperature: logits are divided by it; below 1 is bolder, above 1 more varied.
        top_p: draw among the fewest residues whose probabilities reach it together; 1: all.
        max_prob_only: always the most probable residue; temperature and top_p play no part.
        longest_run: a residue that would make more than this many of the same side by side is not
            drawn; 0: any may be, so that what is drawn is the model's own distribution.
        seed: protein i of a batch draws from the stream (seed, i), so that it stays the same
            however many proteins are sampled with it; but for the rounding of BLAS, which depends
            on the rows of a product and decides one draw in a few million.
        order: of "unmask", which mask is next: "left-to-right", the one whose best residue is the
            most probable ("confident"), or a random one. None: "random".
        steps: of "unmask", in how many steps the masks of a protein are filled. Those of one step
            do not see each other. None: as many as there are masks, which is exact.
        schedule: of "unmask", how many are filled in a step: "linear", as many in each; "cosine",
            few at first and more as more is known (Chang et al. 2022). None: "linear".
        rounds: of "gibbs", how often each position is drawn anew. None: ROUNDS.
        block: of "gibbs", the largest share of the positions that is masked and drawn at once. A
            round is a random partition of the positions into ceil(1 / block) blocks. None: BLOCK.
        burn_in: of "gibbs", the first rounds, which draw at temperature 1 from all residues,
            whatever temperature, top_p and max_prob_only; they are of the `rounds`. None: half.
    """

    sampler: Sampler = "auto"
    temperature: float = 1.0
    top_p: float = 1.0
    max_prob_only: bool = False
    longest_run: int = LONGEST_RUN
    seed: int = 42
    order: Order | None = None
    steps: int | None = None
    schedule: Schedule | None = None
    rounds: int | None = None
    block: float | None = None
    burn_in: int | None = None

    def __post_init__(self) -> None:
        if not (math.isfinite(self.temperature) and self.temperature > 0):
            raise UserError(
                f"[Sampling] temperature must be above 0; got {self.temperature}. "
                f"For the most probable residues use max_prob_only."
            )
        if not 0 < self.top_p <= 1:
            raise UserError(f"[Sampling] top_p must be above 0 and at most 1; got {self.top_p}.")
        if self.block is not None and not 0 < self.block <= 1:
            raise UserError(f"[Sampling] block must be above 0 and at most 1; got {self.block}.")
        for name, words in (("sampler", SAMPLERS), ("order", ORDERS), ("schedule", SCHEDULES)):
            value = getattr(self, name)
            if value not in words and (value is not None or name == "sampler"):
                raise UserError(f"[Sampling] {name} must be one of {words}; got {value!r}.")
        for name, low in (("seed", 0), ("longest_run", 0), ("steps", 1), ("rounds", 1)):
            value = getattr(self, name)
            if value is not None and value < low:
                raise UserError(f"[Sampling] {name} must be {low} or more; got {value}.")
        rounds = ROUNDS if self.rounds is None else self.rounds
        if self.burn_in is not None and not 0 <= self.burn_in <= rounds:
            raise UserError(
                f"[Sampling] burn_in must be from 0 to the {rounds} rounds, of which it is a part; "
                f"got {self.burn_in}."
            )
        if self.schedule is not None and self.steps is None:
            raise UserError(
                "[Sampling] schedule says how many masks each of the steps fills: give steps too."
            )
        self._require_one_sampler()

    def _require_one_sampler(self) -> None:
        unmask, gibbs = self._given(_OF_UNMASK), self._given(_OF_GIBBS)
        if unmask and gibbs:
            raise UserError(
                f"[Sampling] {' and '.join(unmask)} are for the sampler unmask, "
                f"{' and '.join(gibbs)} for gibbs: leave out those of the one or the other."
            )
        odd = {"unmask": gibbs, "gibbs": unmask}.get(self.sampler)
        if odd:
            raise UserError(
                f"[Sampling] the sampler {self.sampler} has no {' and no '.join(odd)}: "
                f"leave that out, or choose the other sampler."
            )

    def _given(self, names: Sequence[str]) -> list[str]:
        return [name for name in names if getattr(self, name) is not None]

    @property
    def is_for_unmask(self) -> bool:
        """Whether something is given that only "unmask" has."""
        return bool(self._given(_OF_UNMASK))

    @property
    def blocks(self) -> int:
        """Into how many blocks a round of "gibbs" parts the positions, where there are enough."""
        block = BLOCK if self.block is None else self.block
        return math.ceil(min(1 / block, _MOST_BLOCKS))

    def draws(self, masks: int) -> int:
        """How many residues are drawn for that many masks; `self` is settled."""
        return masks * (self.rounds or 1)

    def facts(self) -> dict[str, Any]:
        """What settled sampling does, less what plays no part: names and values, in an order."""
        own = _OF_GIBBS if self.sampler == "gibbs" else _OF_UNMASK
        chance = ("max_prob_only",) if self.max_prob_only else ("temperature", "top_p")
        names = ("sampler", *own, *chance, "longest_run")
        return {name: getattr(self, name) for name in names if getattr(self, name) is not None}


def settled(sampling: Sampling, model: ESM1, templates: Sequence[Tokens]) -> Sampling:
    """Sampling with a sampler, and with values of all that this one has.

    Of "auto", what is given that only one sampler has decides. Otherwise a model trained for
    masking 15 % gets "gibbs" where more than a quarter of a protein is masked, and all else
    "unmask". Sampling that is settled already stays as it is.

    Args:
        sampling: what was asked for.
        model: the model.
        templates: (L_i,) integer each, with masks; see `fill_masks`.

    Raises:
        UserError: there are more steps than masks.
    """
    sampler = sampling.sampler
    if sampler == "auto":
        if sampling.is_for_unmask:
            sampler = "unmask"
        elif sampling._given(_OF_GIBBS) or _is_unknown(model, templates):
            sampler = "gibbs"
        else:
            sampler = "unmask"
    if sampler == "gibbs":
        rounds = ROUNDS if sampling.rounds is None else sampling.rounds
        return dataclasses.replace(
            sampling,
            sampler=sampler,
            rounds=rounds,
            block=BLOCK if sampling.block is None else sampling.block,
            burn_in=rounds // 2 if sampling.burn_in is None else sampling.burn_in,
        )
    schedule = sampling.schedule
    if sampling.steps is not None:
        schedule = schedule or "linear"
        fewest = min((_masks(model, template) for template in templates), default=sampling.steps)
        if sampling.steps > fewest:
            raise UserError(
                f"[Sampling] steps must be at most the masks of a protein, {fewest}; got "
                f"{sampling.steps}. Left out, each mask has a step of its own."
            )
    order = sampling.order or "random"
    return dataclasses.replace(sampling, sampler=sampler, order=order, schedule=schedule)


def warn_untrained(sampling: Sampling, model: ESM1, templates: Sequence[Tokens]) -> None:
    """Say in one `SamplerWarning` that a model is asked for what it was not trained for.

    Args:
        sampling, model, templates: as of `settled`, and settled.
    """
    if sampling.sampler == "unmask" and _is_unknown(model, templates):
        warnings.warn(
            "this model was trained with 15% of the residues masked, and unmask shows it many "
            "more: expect an odd composition. The sampler gibbs keeps to what it knows.",
            SamplerWarning,
            stacklevel=2,
        )


def _is_unknown(model: ESM1, templates: Sequence[Tokens]) -> bool:
    """Whether a template has more masks than a model has seen."""
    if model.config.objective != "mlm":
        return False
    specials = model.alphabet.num_specials
    return any(_masks(model, t) > _MOST_MASKED * (len(t) - specials) for t in templates)


def _masks(model: ESM1, template: Tokens) -> int:
    return int(np.count_nonzero(template == model.alphabet.mask_idx))
