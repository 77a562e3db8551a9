"""The page of all substitutions that score makes."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from ..data.residue_classes import RESIDUE_CLASSES
from ..distributed.ranks import Ranks
from ..inference.likelihood import Floats
from ..inference.variants import Strategy, score_variants, substitution_grid
from ..models.esm1 import ESM1
from ..pictures.substitutions_page import substitutions_page
from ..system.console import say
from ..system.errors import UserError
from ..system.whole_file import require_no_input, require_writable, whole_file

_ODDS = "log-odds, in nats: log p(new residue) − log p(wild type's residue)"
_MEASURES: dict[Strategy, str] = {
    "wt-marginals": f"{_ODDS}, where the model sees the wild type (wt-marginals)",
    "masked-marginals": f"{_ODDS}, with that residue masked (masked-marginals)",
    "pseudo-perplexity": "the change of the protein's pseudo-log-likelihood, in nats, each residue "
    "masked in turn (pseudo-perplexity)",
}


def require_page(path: Path | None, ranks: Ranks, *given: str | Path | None) -> None:
    """Refuse a page that cannot be written, or would be written over an input.

    Args:
        path: of the page; None: there will be none.
        ranks: only the first of several processes writes; the others may not have its folder.
        given: what is read.

    Raises:
        UserError: it is such a page.
    """
    if path is None:
        return
    if path.suffix.lower() not in (".html", ".htm"):
        raise UserError(f"{path} must end in .html.")
    if ranks.is_first:
        require_no_input(path, *given)
        require_writable(path)


def score_of_wild_type(model: ESM1, sequence: str, strategy: Strategy, ranks: Ranks) -> float:
    """What the scores of a strategy are to be compared with; 0 where they are so already."""
    if strategy != "pseudo-perplexity":
        return 0.0
    return float(score_variants(model, sequence, ["WT"], strategy=strategy, ranks=ranks)[0])


def write_page(
    path: Path,
    sequence: str,
    scores: Mapping[str, Floats],
    offset: int,
    strategy: Strategy,
    protein: str,
    models: str,
    table: str,
) -> None:
    """Write the page, whole or not at all.

    Args:
        path: of the page.
        sequence: the wild type, whose first residue has the number `offset`.
        scores: of `every_substitution`, by model; 0 is as good as the wild type.
        offset: number of the first residue.
        strategy: of the scores.
        protein, models: what they are called.
        table: the name of the csv file.
    """
    last = offset + len(sequence) - 1
    note = f"The scores are in {table}, too"
    if strategy == "pseudo-perplexity":
        note += ", where that of the wild type is not taken off"
    text = substitutions_page(
        f"Substitutions of {protein}",
        f"{len(sequence):,} residues, numbered from {offset} to {last}; {strategy}; {models}.",
        sequence,
        {name: substitution_grid(sequence, values) for name, values in scores.items()},
        offset=offset,
        classes=RESIDUE_CLASSES,
        measure=f"Scores are {_MEASURES[strategy]}. 0 is as good as the wild type, higher is "
        "fitter. They are what a model expects; nothing was measured.",
        note=f"{note}.",
    )
    with whole_file(path) as half_done:
        # A path may have bytes that are no text.
        half_done.write_text(text, encoding="utf-8", errors="replace")
    say(f"🔭 open {path} in a browser")
