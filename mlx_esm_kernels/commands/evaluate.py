"""`python -m mlx_esm_kernels.evaluate`: how good models are on given proteins."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import click
import numpy as np

from ..data.alphabet import Alphabet
from ..data.baselines import BaselineCounts
from ..data.corpus import SAMPLE
from ..data.proteins import Places, Proteins, load_proteins, split_held_out
from ..data.synthetic import SyntheticFamilies, make_sample
from ..data.targets import Targets, draw_targets, symbols
from ..inference.evaluation import Evaluation, summarised, yardsticks
from ..inference.measuring import Measured, measure, require_measurable
from ..inference.planted_contacts import num_looked_at, planted_precision
from ..inference.requirements import Long
from ..models.esm1 import ESM1
from ..pictures.evaluation import draw_evaluation
from ..system.console import progress, say
from ..system.errors import DataError, UserError
from ..system.interrupt import StopOnSignal
from ..system.whole_file import whole_file
from .choice import Choice
from .errors import errors_as_sentences
from .evaluate_record import record, series
from .evaluate_text import lines
from .figure_files import require_figure_files
from .flags import (
    WEIGHTS_HELP,
    adapter_flag,
    as_protein_flag,
    device_flag,
    dtype_flag,
    long_flag,
    model_name,
    open_model,
    require_one_base,
)
from .grouped_command import GroupedCommand

ALL, HELD_OUT = "all", "held-out"

TOLD = """\b
Each protein has 15 % of its residues masked, by a draw that depends on its
own sequence alone: any model is asked for the same residues. Beside it:
  residue frequencies  how often each residue occurs
  neighbours           what stands beside a residue, as far as that is not
                       masked, and how often that is so
  entropy floor        of sample: the best that any model could do
Baselines are counted on the proteins themselves (or on --baseline-from; with
--part held-out on the other part), always without the one that is asked for.
Standard errors are clustered by protein. Of proteins that are the same, one
is measured.
"""


@dataclass(frozen=True)
class _Data:
    """What to measure on.

    Attributes:
        proteins: all there are.
        measured: (N,) those to measure on.
        counted, counted_on: what the baselines are counted on, (M,) of these proteins.
        families: of the synthetic sample.
        kind: what they are called.
    """

    proteins: Proteins
    measured: Places
    counted: Proteins
    counted_on: Places
    families: SyntheticFamilies | None
    kind: str


GROUPS = {
    "What to read": ["weights-file", "adapter", "part", "baseline-from", "as-protein"],
    "What to write": ["json", "picture"],
    "How": ["draws", "long", "dtype", "device"],
}


@click.command(
    "evaluate",
    cls=GroupedCommand,
    groups=GROUPS,
    context_settings={"show_default": True},
    epilog=TOLD,
)
@click.argument("fasta", nargs=-1, required=True)
@click.option(
    "--weights-file",
    "weights_files",
    required=True,
    multiple=True,
    help=f"{WEIGHTS_HELP}; may be given several times, to compare.",
)
@adapter_flag
@click.option(
    "--part",
    type=Choice([ALL, HELD_OUT]),
    help="held-out: only the proteins that train holds out of these files.  "
    "[default: all; of sample, held-out]",
)
@click.option(
    "--baseline-from",
    multiple=True,
    metavar="FASTA",
    help="A file to count the baselines on; may be given several times.",
)
@click.option(
    "--draws",
    type=click.IntRange(min=1),
    help="Times that each protein is masked anew.  [default: 1 to 6, for 10,000 residues]",
)
@click.option(
    "--json",
    "json_file",
    type=click.Path(dir_okay=False, path_type=Path),
    help="A file to write with all figures, and the confusion of residues.",
)
@click.option(
    "--picture",
    type=click.Path(dir_okay=False, path_type=Path),
    help="A .png to write: by residue, by length, and the confusion of residues.",
)
@long_flag(
    " that overlap by a quarter or more, each residue judged in the one in which it is farther "
    "from an end."
)
@dtype_flag
@as_protein_flag
@device_flag
@click.pass_context
@errors_as_sentences()
def command(ctx: click.Context, /, **options: Any) -> None:
    """Measure models on masked residues of the proteins of FASTA files (- is standard input).

    sample in place of a file is the synthetic families that train makes; on them, the pairs of
    positions that vary together are looked for too.

    \b
    Examples:
      mlx-esm evaluate --weights-file esm2_t6_8M_UR50D proteins.fasta
      mlx-esm evaluate --weights-file A --weights-file B sample --picture both.png
    """
    json_file, picture = options["json_file"], options["picture"]
    given = (*options["fasta"], *options["baseline_from"], *options["weights_files"])
    require_figure_files(json_file, picture, *given, options["adapter"])
    models = _open_models(options["weights_files"], options["dtype"], options["adapter"])
    data = _load(options, models)
    targets = draw_targets(
        data.proteins, data.measured, next(iter(models.values())).alphabet, options["draws"]
    )
    measured, stopped_by = _measure(models, targets, cast(Long, options["long"]))
    evaluations = _summarise(models, measured, data, look_for_pairs=stopped_by is None)
    for line in lines(evaluations, measured, data.kind):
        say(line)
    if stopped_by is not None:
        say(
            f"⏸️ stopped after {len(measured.targets):,} of {len(targets):,} masked residues: the "
            f"figures are of those alone, and no file was written"
        )
        ctx.exit(128 + stopped_by)  # as shells count what a signal ended
    if json_file is not None:
        with whole_file(json_file) as half_done:
            text = json.dumps(record(evaluations, measured, data.kind), indent=1, allow_nan=False)
            half_done.write_text(f"{text}\n", encoding="utf-8")
        say(f"💾 saved to {json_file}")
    if picture is not None:
        first = next(iter(evaluations))
        by_residue = series(evaluations, "by_residue")
        by_length = series(evaluations, "by_length")
        confusion = evaluations[first].confusion
        draw_evaluation(picture, by_residue, by_length, confusion, title=first)
        say(f"💾 drawn to {picture}")


def _open_models(
    weights_files: tuple[str, ...], dtype: str | None, adapter: Path | None
) -> dict[str, ESM1]:
    """All of them, before the work: what is wrong with the last one is known at once."""
    require_one_base(weights_files, adapter)
    models: dict[str, ESM1] = {}
    for weights in weights_files:
        name = model_name(weights, adapter)
        if name in models:
            raise DataError(f"{weights} is given twice.")
        say(f"📥 loading {weights}")
        models[name] = open_model(weights, dtype, adapter)
    return models


def _load(options: Mapping[str, Any], models: Mapping[str, ESM1]) -> _Data:
    fasta, as_protein = options["fasta"], options["as_protein"]
    alphabet = next(iter(models.values())).alphabet
    families = None
    if SAMPLE in fasta:
        if set(fasta) != {SAMPLE}:
            raise DataError(
                "The synthetic sample has an entropy floor that real proteins have not, so it is "
                "measured on alone: leave out either sample or the files."
            )
        families = make_sample(alphabet=alphabet)
        proteins = families.proteins
    else:
        proteins = load_proteins(fasta, alphabet, as_protein=as_protein)
    kind = "proteins" if families is None else "synthetic proteins"
    part = options["part"] or (ALL if families is None else HELD_OUT)
    everything = np.arange(len(proteins))
    if part == ALL:
        data = _Data(proteins, everything, proteins, everything, families, kind)
    else:
        _require_one_split(models, alphabet)
        others, held_out = split_held_out(proteins)
        data = _Data(proteins, held_out, proteins, others, families, f"held-out {kind}")
    if not options["baseline_from"]:
        return data
    counted = load_proteins(options["baseline_from"], alphabet, as_protein=as_protein)
    return _Data(proteins, data.measured, counted, np.arange(len(counted)), families, data.kind)


def _require_one_split(models: Mapping[str, ESM1], alphabet: Alphabet) -> None:
    """What is held out depends on the ids of residues."""
    first, *others = models
    for name in others:
        if not np.array_equal(symbols(models[name].alphabet), symbols(alphabet)):
            raise UserError(
                f"{first} and {name} have other ids for the residues, so that other proteins were "
                f"held out of their training: compare them on proteins that neither has seen, with "
                f"--part all."
            )


def _measure(
    models: Mapping[str, ESM1], targets: Targets, long: Long
) -> tuple[Measured, int | None]:
    """What the models say, and the number of the signal that ended it before its time."""
    for name, model in models.items():
        try:
            require_measurable(model, targets, long)
        except UserError as error:
            raise UserError(f"{name}: {error}") from None
    with (
        StopOnSignal() as stop,
        progress(total=len(targets), desc="🔍 measuring", unit="residue") as bar,
    ):
        measured = measure(
            models,
            targets,
            long=long,
            on_step=bar.update,
            stopped=lambda: stop.received is not None,
        )
    return measured, stop.received if len(measured.targets) < len(targets) else None


def _summarise(
    models: Mapping[str, ESM1], measured: Measured, data: _Data, *, look_for_pairs: bool
) -> dict[str, Evaluation]:
    alphabet = measured.targets.alphabet
    counts = BaselineCounts(data.counted, data.counted_on, alphabet)
    others = yardsticks(measured.targets, counts, data.families)
    evaluations = {name: summarised(measured, name, others) for name in models}
    if data.families is None or not look_for_pairs:
        return evaluations
    for name, model in models.items():
        total = num_looked_at(data.families, data.measured)
        with progress(total=total, desc="🤝 looking for pairs", unit="protein") as bar:
            planted = planted_precision(model, data.families, data.measured, bar.update)
        if planted is not None:
            evaluations[name] = evaluations[name].with_planted(planted)
    return evaluations
