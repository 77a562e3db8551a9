"""`python -m mlx_esm_kernels.train`: train a model; with no argument, on synthetic proteins."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import click
import mlx.core as mx
from click.core import ParameterSource

from ..data.alphabet import Alphabet
from ..data.corpus import Corpus, open_corpus
from ..data.packing import PackedBatches, batch_shape
from ..models.esm1 import ESM1, PRESETS, describe
from ..ops import keep_freed_memory
from ..system.console import duration, say
from ..training.record import MetricsLog
from ..training.run import new_state, run_training
from ..training.run_folder import RunFolder, open_run_folder
from ..training.settings import Outcome, Settings
from ..training.validation import Validation, perplexity
from ..weights import load_model
from .errors import errors_as_sentences
from .flags import WEIGHTS_HELP, as_protein_flag, device_flag
from .spread_command import SpreadCommand

# The default run: about a minute on two cores.
NUM_ITERS = 1000
WARMUP = 100
# Wider models take smaller steps: 0.003 for small, 0.0006 for medium, 0.00016 for the released.
RATE_TIMES_WIDTH = 0.2


def parse_partitions(
    ctx: click.Context, parameter: click.Parameter, values: tuple[str, ...]
) -> list[int]:
    """`("1,2", "5")` -> [1, 2, 5]; whole numbers with commas between them."""
    numbers = [number.strip() for value in values for number in value.split(",")]
    for number in numbers:
        if not number.isdecimal():
            raise click.BadParameter(
                f"expected partition numbers such as 1 or 1,2,3; got {number!r}.", ctx, parameter
            )
    return [int(number) for number in numbers]


def require_finite(
    ctx: click.Context, parameter: click.Parameter, value: float | None
) -> float | None:
    """The value; nan and inf, which are floats to click, are refused."""
    if value is not None and not math.isfinite(value):
        raise click.BadParameter(f"expected a finite number; got {value}.", ctx, parameter)
    return value


@click.command(name="train", cls=SpreadCommand, context_settings={"show_default": True})
@click.option(
    "--data",
    multiple=True,
    metavar="PATH...|sample|swissprot",
    help="FASTA files, plain or compressed (- is standard input); several may follow. sample is "
    "synthetic protein families, made on the spot; swissprot is downloaded once (90 MB).  "
    "[default: sample]",
)
@click.option(
    "--dataset-partitions",
    multiple=True,
    metavar="N,N,...",
    callback=parse_partitions,
    help="Partitions of UniParc, 1 to 200, downloaded once (each about 1 GB).",
)
@click.option("--num-iters", type=click.IntRange(min=1), help="Steps to train.  [default: 1000]")
@click.option(
    "--max-minutes",
    type=click.FloatRange(min=0, min_open=True),
    callback=require_finite,
    help="Time to train, instead of --num-iters or as a further limit.",
)
@click.option(
    "--weights-dir",
    type=click.Path(file_okay=False, path_type=Path),
    help="Where weights, metrics.jsonl and loss.png go.  [default: runs/NAME-1, -2, ...]",
)
@click.option(
    "--weights-file",
    help=f"{WEIGHTS_HELP}, to go on from. A run of ours goes on in its folder; what else is given "
    "is never written to.",
)
@click.option(
    "--preset", type=click.Choice(list(PRESETS)), default="small", help="Size of a new model."
)
@click.option("--tokens-per-batch", type=click.IntRange(min=32), default=2048)
@click.option(
    "--learning-rate",
    type=click.FloatRange(min=0, min_open=True),
    callback=require_finite,
    help="The highest rate; it decays to 0.  [default: 0.2 / width, which is 0.003 for small]",
)
@click.option(
    "--warmup",
    type=click.IntRange(min=0),
    help="Steps in which the rate rises to --learning-rate.  "
    "[default: 100, or a tenth of --num-iters]",
)
@click.option(
    "--valid-every",
    type=click.IntRange(min=1),
    help="Steps between validations.  [default: ten times in a run]",
)
@click.option("--seed", type=click.IntRange(min=0), default=42)
@as_protein_flag
@device_flag
@click.pass_context
@errors_as_sentences()
def command(ctx: click.Context, /, **options: Any) -> None:
    """Train an ESM-1 protein language model.

    Without any option it trains a small one on synthetic protein families for about a minute, and
    compares it with the best that any model could do.
    """
    stopped_by = _train(ctx, **options)
    if stopped_by is not None:
        ctx.exit(128 + stopped_by)  # as shells count a process that a signal ended


def _train(ctx: click.Context, **options: Any) -> int | None:
    """Do what the options say; the number of the signal that stopped it, or None."""
    mx.random.seed(options["seed"])
    model, alphabet = _make_model(ctx, options["preset"], options["weights_file"])
    say("📥 loading data")
    corpus = open_corpus(
        options["data"],
        options["dataset_partitions"],
        alphabet,
        as_protein=options["as_protein"],
    )
    say(f"   {corpus.summary()}")
    validation = Validation(
        corpus.proteins,
        corpus.train,
        corpus.valid,
        alphabet,
        max_positions=model.config.max_positions,
        optimal_loss=corpus.optimal_loss,
    )
    rows, row_length = batch_shape(
        corpus.proteins.lengths[corpus.train],
        tokens_per_batch=options["tokens_per_batch"],
        max_positions=model.config.max_positions,
        num_specials=alphabet.num_specials,
    )
    batches = PackedBatches(
        corpus.proteins,
        corpus.train,
        alphabet,
        rows=rows,
        row_length=row_length,
        seed=options["seed"],
    )
    with open_run_folder(
        options["weights_dir"], options["weights_file"], label=corpus.label
    ) as folder:
        say(
            f"🚂 training {describe(model)} on the {mx.default_device().type.name}, "
            f"in {folder.weights.parent}"
        )
        with MetricsLog(folder.metrics) as log:
            settings = _settings(options, model.config.embed_dim)
            state = new_state(model, batches, settings, earlier_steps=log.last_step)
            outcome = run_training(state, validation, settings, folder, log)
    _report(outcome, batches.fill, validation, corpus, folder)
    return outcome.stopped_by


def _make_model(ctx: click.Context, preset: str, weights_file: str | None) -> tuple[ESM1, Alphabet]:
    keep_freed_memory()  # a step frees nearly all that the next one needs again
    if weights_file is None:
        model = ESM1(PRESETS[preset])
        return model, model.alphabet
    if ctx.get_parameter_source("preset") is ParameterSource.COMMANDLINE:
        raise click.UsageError(
            "--preset is the size of a new model, but --weights-file brings one with a size: "
            "leave one of them out."
        )
    model = load_model(weights_file)
    return model, model.alphabet


def _settings(options: dict[str, Any], width: int) -> Settings:
    num_iters, warmup = options["num_iters"], options["warmup"]
    if num_iters is None and options["max_minutes"] is None:
        num_iters = NUM_ITERS
    if warmup is None:
        warmup = WARMUP if num_iters is None else min(WARMUP, num_iters // 10)
    return Settings(
        num_iters=num_iters,
        max_minutes=options["max_minutes"],
        learning_rate=options["learning_rate"] or RATE_TIMES_WIDTH / width,
        warmup=warmup,
        valid_every=options["valid_every"],
        seed=options["seed"],
    )


def _report(
    outcome: Outcome, fill: float, validation: Validation, corpus: Corpus, folder: RunFolder
) -> None:
    """Say what came of it: the comparison that shows whether it learned, and where all is."""
    say(
        f"🌳 {outcome.steps:,} steps in {duration(outcome.seconds)}: "
        f"{outcome.residues / 1e6:.3g} M residues, batches {fill:.0%} full"
    )
    if not outcome.steps:
        say("   stopped before the first step, so there are no weights to save")
        return
    if outcome.valid_loss is not None:
        kind = "synthetic proteins" if corpus.optimal_loss is not None else "proteins"
        say(
            f"   perplexity on {validation.num_targets:,} masked residues of "
            f"{validation.num_proteins:,} held-out {kind}:"
        )
        say(f"     residue frequencies {perplexity(validation.unigram_loss):7.2f}")
        say(f"     this model          {perplexity(outcome.valid_loss):7.2f}")
        if validation.floor_loss is not None:
            floor = perplexity(validation.floor_loss)
            say(f"     entropy floor       {floor:7.2f}  (no model can do better)")
    say(f"💾 weights saved to {folder.weights}")
    say(f"📈 {folder.plot} and {folder.metrics}")
    say(f"🌱 next: python -m mlx_esm_kernels.generate --weights-file {folder.weights}")
