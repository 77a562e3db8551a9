"""`python -m mlx_esm_kernels.score`: what a model thinks of a protein's variants."""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any, cast

import click
import numpy as np

from ..data.alphabet import ESM1B
from ..data.csv_table import CsvTable, read_csv, require_csv_output, write_csv
from ..data.mutants import Mutant, mutated, parse_mutants
from ..data.residues import require_residues
from ..data.wild_type import read_wild_type
from ..distributed.ranks import Ranks, join_ranks
from ..inference.likelihood import Floats
from ..inference.requirements import Long
from ..inference.variants import (
    STRATEGIES,
    Strategy,
    every_substitution,
    num_steps,
    score_variants,
    spearman,
    substitution_grid,
)
from ..models.esm1 import ESM1
from ..models.fingerprint import fingerprint
from ..pictures.substitutions import draw_substitutions
from ..system.console import progress, say
from ..system.errors import DataError, UserError
from ..system.whole_file import require_writable
from .choice import Choice
from .errors import errors_as_sentences, one_speaks
from .flags import (
    WEIGHTS_HELP,
    adapter_flag,
    device_flag,
    dtype_flag,
    long_flag,
    model_name,
    open_model,
    require_one_base,
)
from .score_page import require_page, score_of_wild_type, write_page
from .spread_command import SpreadCommand

PROTEIN_GYM_SCORE = "DMS_score"
PROTEIN_GYM_SEQUENCE = "mutated_sequence"
MUTANTS = "mutant"
# What MaveDB and others call it, and ProteinGym's tables of insertions and deletions.
_OTHER_MUTANTS = ("hgvs_pro", "mutation", "mutations", "variant_aa", PROTEIN_GYM_SEQUENCE)
# What fair-esm's script calls it.
_FAIR_ESM_NAMES = {"pseudo-ppl": "pseudo-perplexity"}

STRATEGIES_TOLD = """\b
Scores; higher is fitter, and those of several substitutions are summed:
  wt-marginals       log p(new) - log p(old), the model sees the wild type
  masked-marginals   the same, with that residue masked
  pseudo-perplexity  log-likelihood of the mutated protein, each residue
                     masked in turn: slow. exp(-score / residues) is its
                     pseudo-perplexity.
"""


GROUPS = {
    "What to read": [
        "weights-file",
        "adapter",
        "sequence",
        "fasta",
        "dms-input",
        "all-single",
        "mutation-col",
        "offset-idx",
        "score-col",
    ],
    "What to write": ["dms-output", "html"],
    "How": ["scoring-strategy", "long", "dtype", "device"],
}


@click.command(
    "score",
    cls=SpreadCommand,
    groups=GROUPS,
    may_be_empty=["--sequence"],  # it has its own sentence
    context_settings={"show_default": True},
    epilog=STRATEGIES_TOLD,
)
@click.option(
    "--weights-file",
    "--model-location",
    "weights_files",
    required=True,
    multiple=True,
    help=f"{WEIGHTS_HELP}; several may follow.",
)
@adapter_flag
@click.option("--sequence", help="The wild type, one letter per residue.")
@click.option("--fasta", help="A FASTA file with the wild type, instead of --sequence.")
@click.option(
    "--dms-input",
    type=click.Path(path_type=Path),
    help="Variants to score: a table with a line of names, of commas, semicolons or tabs, plain "
    "or compressed.",
)
@click.option(
    "--all-single",
    is_flag=True,
    help="Score every single substitution, instead of --dms-input; draws a heat map beside the "
    "output.",
)
@click.option(
    "--dms-output",
    required=True,
    type=click.Path(path_type=Path),
    help="csv to write (gzip where it ends in .gz): the input and a column for each model, "
    "separated as the input is.",
)
@click.option(
    "--html",
    type=click.Path(path_type=Path),
    help="With --all-single, NAME.html to write: a heat map to point at, and its numbers.",
)
@click.option(
    "--mutation-col",
    default=MUTANTS,
    help="Column with the mutants: A1P, A1P:D2N, HGVS (p.Ala1Pro, p.Ala1del), WT, or whole "
    "proteins.",
)
@click.option(
    "--offset-idx",
    type=int,
    default=1,
    help="The number by which the mutants call the first residue of the sequence.",
)
@click.option(
    "--scoring-strategy",
    type=Choice([*STRATEGIES, *_FAIR_ESM_NAMES]),
    default="wt-marginals",
    help="See below.",
)
@click.option(
    "--score-col",
    help=f"Column with measured scores to compare with.  [default: {PROTEIN_GYM_SCORE}, if there]",
)
@long_flag(", each mutated residue in one with it in the middle.")
@dtype_flag
@device_flag
@errors_as_sentences()
def command(**options: Any) -> None:
    """Score the variants of a protein with one or several models.

    \b
    Examples:
      mlx-esm score --weights-file W --sequence MKTAYI \\
          --all-single --dms-output all.csv --html all.html
      mlx-esm score --weights-file W --fasta wt.fasta \\
          --dms-input dms.csv --dms-output out.csv
    """
    ranks = join_ranks()
    with one_speaks(ranks):
        _score(ranks, **options)


def _score(
    ranks: Ranks,
    *,
    weights_files: tuple[str, ...],
    sequence: str | None,
    fasta: str | None,
    dms_input: Path | None,
    all_single: bool,
    dms_output: Path,
    html: Path | None,
    mutation_col: str,
    offset_idx: int,
    scoring_strategy: str,
    score_col: str | None,
    long: str,
    dtype: str | None,
    adapter: Path | None,
) -> None:
    """Do what the options say."""
    strategy = cast(Strategy, _FAIR_ESM_NAMES.get(scoring_strategy, scoring_strategy))
    require_one_base(weights_files, adapter)
    wild_type = _wild_type(sequence, fasta)
    _require_one_task(all_single, dms_input, html)
    table = _table(dms_input, mutation_col, wild_type, offset_idx)
    mutation_col = _column_of_mutants(table, mutation_col)
    parsed = _parse(table, mutation_col, wild_type, offset_idx)
    measured = _measured(table, score_col)
    picture = _require_outputs(dms_output, dms_input, ranks)
    require_page(html, ranks, *weights_files, adapter, fasta)
    mutants = _mutants(table, mutation_col)
    told = (wild_type, strategy, mutants, offset_idx, long, html is not None)
    ranks.require_alike("variants and options", told)
    names = {weights: model_name(weights, adapter) for weights in weights_files}
    _require_new_columns(table, weights_files, names)
    scores: dict[str, Floats] = {}
    own: dict[str, float] = {}
    for weights in weights_files:
        say(f"📥 loading {weights}")
        model = open_model(weights, dtype, adapter)
        ranks.require_alike("weights (--weights-file)", fingerprint(model))
        scores[names[weights]] = _judged(
            model, wild_type, parsed, mutants, strategy, offset_idx, cast(Long, long), ranks
        )
        if all_single:
            own[names[weights]] = score_of_wild_type(model, wild_type, strategy, ranks)
    if not ranks.is_first:
        return
    if measured is not None:
        _say_spearman(scores, *measured)
    write_csv(dms_output, table.with_columns(scores))
    say(f"💾 {len(parsed):,} variants of {len(wild_type):,} residues saved to {dms_output}")
    models = _models(weights_files, adapter)
    if all_single:
        against = {name: values - own[name] for name, values in scores.items()}
        _draw(picture, wild_type, against, offset_idx, f"{strategy}, {models}")
    if html is not None:
        protein = _short(wild_type) if fasta is None else Path(fasta).name
        write_page(html, wild_type, against, offset_idx, strategy, protein, models, dms_output.name)


def _judged(
    model: ESM1,
    wild_type: str,
    parsed: list[Mutant],
    mutants: list[str],
    strategy: Strategy,
    offset: int,
    long: Long,
    ranks: Ranks,
) -> Floats:
    """The score of each mutant, which `parsed` has too, with a bar."""
    steps = num_steps(wild_type, parsed, strategy)
    with progress(total=steps, desc="🔍 scoring", unit="position") as bar:
        return score_variants(
            model,
            wild_type,
            mutants,
            strategy=strategy,
            offset=offset,
            long=long,
            on_step=bar.update,
            ranks=ranks,
        )


def _require_one_task(all_single: bool, dms_input: Path | None, html: Path | None) -> None:
    if all_single == (dms_input is not None):
        raise click.UsageError("Give either --dms-input or --all-single.")
    if html is not None and not all_single:
        raise click.UsageError("--html shows every substitution: it needs --all-single.")


def _table(dms_input: Path | None, mutation_col: str, wild_type: str, offset: int) -> CsvTable:
    """What to score: that of --dms-input, or all substitutions."""
    if dms_input is not None:
        return read_csv(dms_input)
    rows = [[mutant] for mutant in every_substitution(wild_type, offset)]
    return CsvTable("--sequence", [mutation_col], rows)


def _wild_type(sequence: str | None, fasta: str | None) -> str:
    if (sequence is None) == (fasta is None):
        raise click.UsageError("Give the wild type: either --sequence or --fasta.")
    if fasta is not None:
        return read_wild_type(fasta)
    return require_residues(cast(str, sequence), ESM1B)


def _column_of_mutants(table: CsvTable, mutation_col: str) -> str:
    """The column that was named; where that is the default and missing, one of its other names."""
    if mutation_col == MUTANTS and MUTANTS not in table.header:
        for name in _OTHER_MUTANTS:
            if name in table.header:
                say(f"   there is no column {MUTANTS!r}; the mutants are taken from {name!r}")
                return name
    return mutation_col


def _mutants(table: CsvTable, mutation_col: str) -> list[str]:
    """The mutants of a table; an empty cell among others is the wild type."""
    cells = table.column(mutation_col)
    if len(table.header) == 1:
        return cells
    return [cell if cell.strip() else "WT" for cell in cells]


def _parse(table: CsvTable, mutation_col: str, wild_type: str, offset: int) -> list[Mutant]:
    """The mutants of a table, and a look whether its mutated sequences, if any, are theirs."""
    mutants = _mutants(table, mutation_col)
    try:
        parsed = parse_mutants(mutants, wild_type, ESM1B, offset)
    except UserError as error:
        raise DataError(f"{table.name}, {error}") from None
    if PROTEIN_GYM_SEQUENCE in table.header:
        given = table.column(PROTEIN_GYM_SEQUENCE)
        for row, (text, some) in enumerate(zip(given, parsed, strict=True), start=1):
            # Where the wild type is a part of it, there is nothing to compare.
            whole = mutated(wild_type, some)
            if not some.is_cut and len(text) == len(whole) and text.upper() != whole:
                raise DataError(
                    f"{table.name}, row {row}, {mutants[row - 1]!r}: {PROTEIN_GYM_SEQUENCE} is "
                    f"not the wild type with this mutant; is it another wild type?"
                )
    return parsed


def _measured(table: CsvTable, score_col: str | None) -> tuple[str, Floats] | None:
    """The measured scores and the name of their column, if there are any."""
    if score_col is None and PROTEIN_GYM_SCORE not in table.header:
        return None
    name = score_col or PROTEIN_GYM_SCORE
    return name, table.numbers(name)


def _require_outputs(dms_output: Path, dms_input: Path | None, ranks: Ranks) -> Path:
    """Refuse outputs that cannot be written; the path of the heat map."""
    require_csv_output(dms_output, dms_input)
    name = dms_output.name.removesuffix(".gz").removesuffix(".csv")
    picture = dms_output.with_name(f"{name}.png")
    if ranks.is_first:  # the others write nothing, and may be on machines without that folder
        require_writable(dms_output)
        if dms_input is None:
            require_writable(picture)
    return picture


def _require_new_columns(
    table: CsvTable, weights_files: tuple[str, ...], names: Mapping[str, str]
) -> None:
    for place, weights in enumerate(weights_files):
        if weights in weights_files[:place]:
            raise DataError(f"{weights} is given twice.")
        if names[weights] in table.header:
            raise DataError(f"{table.name} has a column {names[weights]!r} already.")


def _say_spearman(scores: Mapping[str, Floats], name: str, measured: Floats) -> None:
    known = np.isfinite(measured) & np.all([np.isfinite(s) for s in scores.values()], axis=0)
    candidates = dict(scores)
    if len(scores) > 1:
        candidates["their mean"] = np.mean(list(scores.values()), axis=0)
    for model, values in candidates.items():
        rho = spearman(values[known], measured[known])
        told = "undefined: all are the same" if math.isnan(rho) else f"{rho:.3f}"
        say(f"📈 Spearman with {name!r} over {int(known.sum()):,} variants: {told} ({model})")


def _draw(
    picture: Path, wild_type: str, scores: Mapping[str, Floats], offset: int, title: str
) -> None:
    """The heat map of all substitutions beside the wild type, of several models their mean."""
    grid = substitution_grid(wild_type, np.mean(list(scores.values()), axis=0))
    draw_substitutions(picture, wild_type, grid, offset=offset, title=title)
    say(f"💾 heat map saved to {picture}")


def _short(sequence: str) -> str:
    return sequence if len(sequence) <= 12 else f"{sequence[:10]}…"


def _models(weights_files: tuple[str, ...], adapter: Path | None) -> str:
    if len(weights_files) > 1:
        return f"mean of {len(weights_files)} models"
    return model_name(Path(weights_files[0]).name, adapter)
