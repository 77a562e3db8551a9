"""New proteins, or the masked residues of given ones, as text."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterable

import numpy as np

from ..data.residues import listed
from ..data.templates import parse_template, require_amino_acids
from ..models.esm1 import ESM1, require_language_head
from ..system.errors import UserError
from .filling import fill_masks
from .requirements import require_room, warn_long
from .sampling import Sampling, settled, warn_untrained


def generate(
    model: ESM1,
    templates: Iterable[int | str],
    sampling: Sampling | None = None,
    *,
    starts: Iterable[str] | None = None,
    on_step: Callable[[int], object] = lambda drawn: None,
) -> list[str]:
    """Proteins drawn from a model, all of them side by side.

    Args:
        model: of `load_model`.
        templates: of each protein its number of residues, all of which are drawn; or a text of
            residues, which are kept, and masks (`*`, `_` or `<mask>`), which are filled.
        sampling: how; None: `Sampling()`, whose sampler is what suits the model.
        starts: of each protein the sequence from which the sampler "gibbs" (which "auto" then is)
            starts in place of its masks; None: random residues, as frequent as in known proteins.
        on_step: called after each step with the number of residues that it drew.

    Returns:
        The proteins, in the order of templates.

    Raises:
        ValueError: a template or start is none or too long, there are more steps than masks, the
            model has no language head, or gives NaN.
    """
    if not isinstance(model, ESM1):
        raise TypeError(
            f"[generate] expected a model, of load_model or ESM1; got a {type(model).__name__}."
        )
    require_language_head(model.config)
    alphabet = model.alphabet
    rows = []
    for number, template in enumerate(listed(templates, "[generate] templates"), start=1):
        if isinstance(template, str):
            ids = parse_template(template, alphabet)
        elif template < 1:
            raise UserError(f"[generate] template {number} has no residues; got {template}.")
        else:
            ids = np.full(template, alphabet.mask_idx, dtype=np.int32)
        require_room(model, len(ids), f"template {number}", "")
        rows.append(alphabet.with_specials(ids))
    warn_long(model, np.array([len(row) - alphabet.num_specials for row in rows], np.int64), "")
    begun = None
    if starts is not None:
        texts = require_amino_acids([*listed(starts, "[generate] starts")], "[generate] start")
        begun = [alphabet.with_specials(alphabet.encode(text)) for text in texts]
        if [len(row) for row in begun] != [len(row) for row in rows]:
            raise UserError("[generate] starts must be as many and as long as the templates.")
    asked = Sampling() if sampling is None else sampling
    if begun is not None and asked.sampler == "auto":
        asked = dataclasses.replace(asked, sampler="gibbs")
    sampling = settled(asked, model, rows)
    warn_untrained(sampling, model, rows)
    filled = fill_masks(model, rows, sampling, on_step, starts=begun)
    return [alphabet.decode(row[alphabet.residue_slice]) for row in filled]
