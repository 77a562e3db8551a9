"""What the weights of a run say of proteins: held-out residues, new proteins, and contacts."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from ..data.alphabet import STANDARD_RESIDUES
from ..data.baselines import BaselineCounts
from ..data.masking import MASK_RATE
from ..data.proteins import Places, Proteins
from ..data.targets import ENOUGH_TARGETS, MASK_SEED, Targets, draw_targets
from ..models.contact_head import require_contact_head
from ..models.esm1 import ESM1, require_language_head
from .contacts import contact_map
from .evaluation import MODEL, Evaluation, summarised, yardsticks
from .filling import fill_masks
from .likelihood import Tokens, masked_log_probabilities
from .measuring import measure
from .sampling import Sampling

SEED = 42
SAMPLES, SAMPLE_LENGTH = 4, 80
MOST_MAPS = 2

OnStep = Callable[[int], object]


@dataclass(frozen=True)
class Sample:
    """A protein that the model made.

    Attributes:
        sequence: its L residues.
        confidence: (L,) float64, the probability of each with it alone masked.
        contacts: (L, L) float32 probabilities; None: the model predicts none, or was not asked.
    """

    sequence: str
    confidence: npt.NDArray[np.float64] = field(repr=False)
    contacts: npt.NDArray[np.float32] | None = field(default=None, repr=False)

    @property
    def pseudo_perplexity(self) -> float:
        """As that of `pseudo_perplexity`."""
        return float(np.exp(-np.log(self.confidence).mean()))


def held_out_targets(proteins: Proteins, held_out: Places, model: ESM1) -> Targets:
    """Masked residues of held-out proteins, about ENOUGH_TARGETS of them.

    Of many proteins a random choice is taken, the same every time.

    Raises:
        DataError: none has one of the 20 amino acids.
    """
    order = np.random.default_rng(MASK_SEED).permutation(len(held_out))
    residues = np.cumsum(proteins.lengths[held_out[order]], dtype=np.int64)
    # A fifth more, as targets are rounded and not every residue is an amino acid: else all of them
    # would be drawn twice over for the few that are wanting.
    count = int(np.searchsorted(residues, 1.2 * ENOUGH_TARGETS / MASK_RATE)) + 1
    return draw_targets(proteins, held_out[order[:count]], model.alphabet)


def on_held_out(
    model: ESM1,
    targets: Targets,
    proteins: Proteins,
    train: Places,
    on_step: OnStep = lambda measured: None,
) -> Evaluation:
    """What the model says of held-out residues, beside baselines that are counted on `train`.

    Raises:
        UserError: the model has no language head, or gives NaN.
    """
    measured = measure({MODEL: model}, targets, long="window", on_step=on_step)
    counts = BaselineCounts(proteins, train, model.alphabet)
    return summarised(measured, MODEL, yardsticks(measured.targets, counts))


def made_by(model: ESM1, on_step: OnStep = lambda filled: None) -> list[Sample]:
    """New proteins from nothing, always the same of one model; the first with their contacts.

    Raises:
        UserError: the model has no language head, or gives NaN.
    """
    require_language_head(model.config)
    alphabet = model.alphabet
    length = _sample_length(model)
    masks = alphabet.with_specials(np.full(length, alphabet.mask_idx, dtype=np.int32))
    tokens = fill_masks(model, [masks] * SAMPLES, Sampling(seed=SEED), on_step)
    made = []
    for number, row in enumerate(tokens):
        ids = row[alphabet.residue_slice]
        contacts = None
        if model.config.contact_head and number < MOST_MAPS:
            contacts = np.array(contact_map(model, ids))
        made.append(Sample(alphabet.decode(ids), confidence(model, row), contacts))
        on_step(length)
    return made


def num_made_by(model: ESM1) -> int:
    """What the numbers that `made_by` gives to `on_step` add up to."""
    return 2 * SAMPLES * _sample_length(model)  # each residue is filled in, and judged


def _sample_length(model: ESM1) -> int:
    return min(SAMPLE_LENGTH, model.config.trained_residues)


def confidence(model: ESM1, tokens: Tokens) -> npt.NDArray[np.float64]:
    """(L,) the probability of each residue of one protein, cls and eos around it, it alone masked.

    Raises:
        UserError: the model gives NaN or infinity.
    """
    found: npt.NDArray[np.float64] = np.exp(masked_log_probabilities(model, tokens[None])[0])
    return found


def no_contacts(model: ESM1) -> str | None:
    """Why a model predicts no contacts, in a sentence; None: it does."""
    try:
        require_contact_head(model.config)
    except ValueError as error:
        return str(error)
    return None


def target_counts(targets: Targets) -> dict[str, int]:
    """How many targets there are of each residue."""
    counts = np.bincount(targets.residues, minlength=len(STANDARD_RESIDUES)).tolist()
    return dict(zip(STANDARD_RESIDUES, counts, strict=True))
