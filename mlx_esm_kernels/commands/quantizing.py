"""`convert --check`: what rounding the weights of a model costs, before it is written."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from ..data.proteins import load_proteins
from ..data.targets import draw_targets
from ..inference.measuring import measure, require_measurable
from ..models.esm1 import ESM1
from ..models.int8 import quantize_int8
from ..system.console import progress, say
from ..system.errors import UserError

# The most that the perplexity of masked residues may change, as a share of it.
LIMIT = 0.01


def require_small_drift(model: ESM1, fasta: Path) -> None:
    """Quantise a model to int8 in place, and say how its masked perplexity changes.

    The same residues are masked before and after, 15 % of the proteins' at a time.

    Raises:
        UserError: it changes by more than `LIMIT`, or the proteins cannot be measured.
    """
    proteins = load_proteins([str(fasta)], model.alphabet)
    targets = draw_targets(proteins, np.arange(len(proteins)), model.alphabet, None)
    require_measurable(model, targets, "window")
    nats = []
    with progress(total=2 * len(targets), desc="🔍 measuring", unit="residue") as bar:
        for step in (lambda: None, lambda: quantize_int8(model)):
            step()
            found = measure({"it": model}, targets, long="window", on_step=bar.update)
            nats.append(float(found.answers["it"].nats.mean()))
    before, after = (float(np.exp(one)) for one in nats)
    drift = after / before - 1
    told = (
        f"int8 changes the masked perplexity on {fasta.name} by {drift:+.3%}, from {before:.4f} to "
        f"{after:.4f} ({len(targets):,} residues)"
    )
    # Not <=: NaN is no small drift.
    if not abs(drift) <= LIMIT:
        raise UserError(f"{told}, which is more than {LIMIT:.0%}: nothing was written.")
    say(f"🔍 {told}")
