"""`python -m mlx_esm_kernels.fit`: a head on a model's embeddings, from labelled proteins."""

from __future__ import annotations

import time
from contextlib import ExitStack
from functools import cache, partial
from pathlib import Path
from typing import Any

import click
import numpy as np
from tqdm import tqdm

from ..data.csv_table import CsvTable, read_csv
from ..data.labelled import Labelled, read_labelled
from ..data.splitting import PARTS, Parts, split_by_column, split_by_hash
from ..data.wild_type import look_like_variants, read_wild_type
from ..fitting.baselines import baselines
from ..fitting.fitting import Fitted, fit_head, known_targets
from ..fitting.head_folder import Base, SavedHead
from ..fitting.optimising import History, Pace
from ..fitting.report import AdapterReport, make_report
from ..fitting.results import FitResult, require_new_columns, write_result
from ..models.esm1 import ESM1, describe
from ..models.int8 import require_unquantised
from ..models.low_rank import LowRank, adapter_arrays, add_low_rank, layers_beside
from ..system.console import duration, progress, say
from ..system.interrupt import StopOnSignal
from ..system.whole_file import require_new_folder
from .errors import errors_as_sentences
from .fit_options import GROUPS, fit_options
from .flags import open_model
from .lora_options import wanted_low_rank
from .spread_command import SpreadCommand

LAYOUT = """\b
HEAD_DIR has
  head.safetensors  the head
  head.json         what it is, and which weights it belongs to
  adapters/         with --lora-rank: what was trained in the model
  predictions.csv   the table, with the columns split and prediction, and of
                    classes of proteins probability_CLASS
  report.txt, metrics.json   how good it is in every part
  predictions.png   predicted against measured, or the confusion matrix

Proteins are parted by a hash of the sequence, so that the same one is never
in two parts. Relatives may be: where proteins come in families, part them by
family yourself, in a column that --split-col names.
"""


@click.command(
    "fit",
    cls=SpreadCommand,
    groups=GROUPS,
    may_be_empty=["--unknown-label"],
    context_settings={"show_default": True},
    epilog=LAYOUT,
)
@fit_options
@click.pass_context
@errors_as_sentences()
def command(ctx: click.Context, /, **options: Any) -> None:
    """Fit a head on a model's embeddings to labelled proteins, and say how good it is.

    The model stays as it is; --lora-rank trains an adapter beside it. A part of the proteins
    chooses the best epoch, another judges, beside what needs no model: a constant, and linear
    regression on the residues.

    \b
    Examples:
      mlx-esm fit --weights-file W --data dms.csv --target-col y \\
          --task regression -o head
      mlx-esm fit --weights-file W --data ss.csv --target-col ss \\
          --task classification --level residue -o head
    """
    stopped_by = _fit(low_rank=wanted_low_rank(ctx, options), **options)
    if stopped_by is not None:
        ctx.exit(128 + stopped_by)  # as shells count what a signal ended


def _fit(
    output: Path, data: Path, weights_file: str, low_rank: LowRank | None, **options: Any
) -> int | None:
    require_new_folder(output)
    table = read_csv(data)
    wild_type = read_wild_type(options["wild_type"]) if options["wild_type"] else ""
    say("📥 loading weights")
    model = open_model(weights_file, options["dtype"])
    base = Base.of(model, weights_file)
    if low_rank is not None:
        require_unquantised(model, weights_file, "adapted")
        layers_beside(model, low_rank)  # what it lacks is said before the long work
    labelled = read_labelled(
        table,
        sequence_col=options["sequence_col"],
        target_col=options["target_col"],
        task=options["task"],
        level=options["level"],
        alphabet=model.alphabet,
        unknown_label=options["unknown_label"],
        as_protein=options["as_protein"],
    )
    require_new_columns(table, labelled, options["split_col"])
    parts = _parts(table, labelled, options)
    say(f"   {_told(labelled, parts)}")
    say(f"   {describe(model)}")
    if not wild_type and labelled.level == "protein" and look_like_variants(labelled.proteins):
        say(
            "💡 these look like variants of one protein, which its mean embedding hardly tells "
            "apart: --wild-type FASTA has the changed residues alone as features"
        )
    fitted = _with_bars(model, labelled, parts, wild_type, low_rank, options)
    known = known_targets(labelled, parts)
    others = baselines(
        labelled, model.alphabet, known["train"], known["valid"], seed=options["seed"]
    )
    adapter = _adapter_report(model, fitted, low_rank, options["lora_learning_rate"])
    report = make_report(labelled, parts, fitted, others, adapter)
    for line in report.lines():
        say(line)
    saved = SavedHead(fitted.head, fitted.spec, base, options["sequence_col"])
    adapted = (model, low_rank) if low_rank is not None and fitted.is_adapted else None
    result = FitResult(table, labelled, parts, fitted, report, saved, options["split_col"], adapted)
    write_result(output, result)
    say(f"💾 saved to {output}")
    return fitted.stopped_by


def _parts(table: CsvTable, labelled: Labelled, options: dict[str, Any]) -> Parts:
    hashes, column = labelled.proteins.hashes, options["split_col"]
    if column is None:
        return split_by_hash(
            hashes,
            valid_fraction=options["valid_fraction"],
            test_fraction=options["test_fraction"],
        )
    cells = table.column(column)
    return split_by_column(
        [cells[row] for row in labelled.rows],
        [row + 1 for row in labelled.rows.tolist()],
        hashes,
        f"{table.name}, column {column!r}",
        options["valid_fraction"],
    )


def _told(labelled: Labelled, parts: Parts) -> str:
    counts = [f"{int((parts == place).sum()):,} {name}" for place, name in enumerate(PARTS)]
    told = f"{len(labelled):,} proteins ({', '.join(counts)})"
    if labelled.classes:
        some = ", ".join(labelled.classes[:8]) + (" ..." if len(labelled.classes) > 8 else "")
        told += f", {len(labelled.classes)} classes: {some}"
    return told


def _with_bars(
    model: ESM1,
    labelled: Labelled,
    parts: Parts,
    wild_type: str,
    low_rank: LowRank | None,
    options: dict[str, Any],
) -> Fitted:
    """The fit, with what a person sees meanwhile."""
    _, distinct = np.unique(labelled.proteins.hashes, return_index=True)
    residues = int(labelled.proteins.lengths[distinct].sum())
    pace, slower = _paces(options)
    of_epoch = int(labelled.proteins.lengths[parts != PARTS.index("test")].sum())
    started = time.monotonic()
    with ExitStack() as stack:

        def bar(desc: str, unit: str, total: int) -> tqdm[Any]:
            stack.close()  # that of the work before
            return stack.enter_context(progress(total=total, desc=desc, unit=unit))

        # Each of them with its first step.
        embedding = cache(partial(bar, "🧬 embedding", "residue", residues))
        fitting = cache(partial(bar, "🎯 fitting", "epoch", pace.max_epochs))
        adapting = cache(partial(bar, "🎯 adapting", "residue", slower.max_epochs * of_epoch))

        def on_epoch(history: History) -> None:
            loss = f"loss {history.valid_losses[-1]:.3f}"
            fitting().set_postfix_str(loss, refresh=False)
            fitting().update()

        def on_adapted(history: History) -> None:
            done, losses = len(history.valid_losses), history.valid_losses
            adapting().set_postfix_str(f"epoch {done}, loss {losses[-1]:.3f}")

        def adapt(model: ESM1) -> None:
            assert low_rank is not None
            say(f"🎯 head alone fitted in {duration(time.monotonic() - started)}; now the adapter")
            add_low_rank(model, low_rank)

        fitted = fit_head(
            model,
            labelled,
            parts,
            layers=options["layers"],
            long=options["long"],
            hidden=options["hidden"],
            wild_type=wild_type,
            pace=pace,
            adapt=adapt if low_rank else None,
            adapt_pace=slower,
            stop=StopOnSignal(),
            on_embedded=lambda done: embedding().update(done),
            on_epoch=on_epoch,
            on_adapting=lambda done: adapting().update(done),
            on_adapted=on_adapted,
        )
    _say_how_it_went(fitted, pace, slower, time.monotonic() - started)
    if low_rank is not None and fitted.adapted is None:
        say("⚠️ the adapter was not begun; the head is on frozen features")
    return fitted


def _paces(options: dict[str, Any]) -> tuple[Pace, Pace]:
    """Those of the head alone, and of the adapter with it."""
    decay, seed = options["weight_decay"], options["seed"]
    alone = Pace(options["learning_rate"], decay, options["max_epochs"], options["patience"], seed)
    both = Pace(
        options["lora_learning_rate"],
        decay,
        options["lora_epochs"],
        options["lora_patience"],
        seed,
        "--lora-learning-rate",
    )
    return alone, both


def _say_how_it_went(fitted: Fitted, alone: Pace, both: Pace, seconds: float) -> None:
    history = fitted.history
    say(
        f"🎯 fitted in {duration(seconds)}: epoch {history.best_epoch} of "
        f"{len(history.valid_losses)} is the best"
    )
    if fitted.stopped_by is not None:
        say("⏸️ stopped; the head is that of the best epoch until then")
        return
    stages = [(history, alone, "--max-epochs")]
    if fitted.adapted is not None:
        stages.append((fitted.adapted, both, "--lora-epochs"))
    for done, pace, flag in stages:
        if len(done.valid_losses) - done.best_epoch < pace.patience:
            say(f"⚠️ it was still getting better; more than {flag} {pace.max_epochs} may help")


def _adapter_report(
    model: ESM1, fitted: Fitted, low_rank: LowRank | None, rate: float
) -> AdapterReport | None:
    if low_rank is None or fitted.adapted is None:
        return None
    history = fitted.adapted
    return AdapterReport(
        low_rank,
        sum(array.size for array in adapter_arrays(model).values()),
        rate,
        len(history.valid_losses),
        history.best_epoch,
        (history.start_loss, min(history.valid_losses, default=history.start_loss)),
    )
