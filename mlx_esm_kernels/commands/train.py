"""`python -m mlx_esm_kernels.train`: train a model; with no argument, on synthetic proteins."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import click
import mlx.core as mx
from click.core import ParameterSource

from ..data.alphabet import Alphabet
from ..data.corpus import SAMPLE, SWISSPROT, Corpus, open_corpus
from ..data.packing import PackedBatches, batch_shape
from ..data.sources import STDIN
from ..models.dtypes import DTYPES
from ..models.esm1 import ESM1, PRESETS, describe
from ..ops import keep_freed_memory
from ..system.console import duration, say
from ..training.checkpoint import Checkpoints, Every, newest_checkpoint
from ..training.recipe import DataSource, Recipe, fingerprint
from ..training.record import MetricsLog
from ..training.run import new_state, run_training
from ..training.run_folder import RunFolder, open_run_folder, reopen_run_folder
from ..training.settings import BETAS, SCHEDULES, Outcome, Settings
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


_UNITS = {"s": 1, "m": 60, "h": 3600}


def parse_every(ctx: click.Context, parameter: click.Parameter, value: str) -> Every:
    """`500` -> steps, `90s`, `15m` or `2h` -> seconds, `never`."""
    number, unit = value.strip().lower(), ""
    if number == "never":
        return Every()
    if number[-1:] in _UNITS:
        number, unit = number[:-1], number[-1]
    if not number.isdecimal() or int(number) < 1:
        raise click.BadParameter(
            f"expected steps such as 500, a time such as 90s, 15m or 2h, or never; got {value!r}.",
            ctx,
            parameter,
        )
    return Every(seconds=int(number) * _UNITS[unit]) if unit else Every(steps=int(number))


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
    "--schedule",
    type=click.Choice(SCHEDULES),
    default="linear",
    help="How the rate goes down over the run.",
)
@click.option(
    "--betas",
    nargs=2,
    type=click.FloatRange(min=0, max=1, max_open=True),
    default=BETAS,
    help="AdamW's: what stays of either moment in a step.",
)
@click.option("--weight-decay", type=click.FloatRange(min=0), default=0.01, help="AdamW's.")
@click.option(
    "--precision",
    type=click.Choice(list(DTYPES)),
    default="float32",
    help="Of activations and their gradients; weights and moments stay float32.",
)
@click.option(
    "--grad-accumulation",
    type=click.IntRange(min=1),
    default=1,
    help="Batches of a step: as one batch of so many times the tokens, in the memory of one.",
)
@click.option(
    "--grad-checkpointing",
    is_flag=True,
    help="Compute each layer again for its gradient: less memory, a third more work.",
)
@click.option(
    "--max-length",
    type=click.IntRange(min=8),
    help="Crop proteins to this many tokens in training.  [default: what the model takes]",
)
@click.option(
    "--valid-every",
    type=click.IntRange(min=1),
    help="Steps between validations.  [default: ten times in a run]",
)
@click.option("--seed", type=click.IntRange(min=0), default=42)
@click.option(
    "--checkpoint-every",
    "every",
    default="15m",
    callback=parse_every,
    metavar="N|TIME|never",
    help="Steps, or time as in 90s, 15m or 2h, between checkpoints, from which --resume goes on.",
)
@click.option("--keep", type=click.IntRange(min=1), default=2, help="Checkpoints that are kept.")
@click.option(
    "--resume",
    type=click.Path(path_type=Path),
    metavar="RUN_DIR",
    help="Go on with a run that was stopped or killed, from its last checkpoint, as if it had "
    "never been; it has its own data and settings.",
)
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
    if options["resume"] is not None:
        return _resume(ctx, options)
    mx.random.seed(options["seed"])
    model, alphabet = _make_model(ctx, options["preset"], options["weights_file"])
    corpus = _load(options["data"], options["dataset_partitions"], options["as_protein"], alphabet)
    rows, row_length = batch_shape(
        corpus.proteins.lengths[corpus.train],
        tokens_per_batch=options["tokens_per_batch"],
        max_positions=min(
            model.config.max_positions, options["max_length"] or model.config.max_positions
        ),
        num_specials=alphabet.num_specials,
    )
    data = DataSource(
        tuple(_absolute(name) for name in options["data"]),
        tuple(options["dataset_partitions"]),
        options["as_protein"],
        len(corpus.proteins),
        int(corpus.proteins.lengths.sum()),
        fingerprint(corpus.proteins),
    )
    settings = _settings(options, model.config.embed_dim)
    recipe = Recipe(model.config, alphabet, data, rows, row_length, options["seed"], settings)
    validation = _validation(corpus, recipe)
    with (
        open_run_folder(
            options["weights_dir"], options["weights_file"], label=corpus.label
        ) as folder,
        MetricsLog(folder.metrics) as log,
    ):
        _say_what(model, "training", folder)
        state = new_state(model, _batches(corpus, recipe), settings, earlier_steps=log.last_step)
        checkpoints = Checkpoints(folder.checkpoints, options["every"], options["keep"], recipe)
        outcome = run_training(state, validation, settings, folder, log, checkpoints)
    _report(outcome, state.batches.batches.fill, validation, corpus, folder)
    return outcome.stopped_by


def _resume(ctx: click.Context, options: dict[str, Any]) -> int | None:
    """Go on with the run of --resume."""
    own = {"resume", "every", "keep"}
    given = [p for p in ctx.command.params if p.name not in own and p.expose_value]
    for parameter in given:
        if ctx.get_parameter_source(parameter.name or "") is ParameterSource.COMMANDLINE:
            raise click.UsageError(
                f"--resume goes on with the data and settings of the run: leave out "
                f"{parameter.opts[0]}."
            )
    keep_freed_memory()
    with reopen_run_folder(options["resume"]) as folder:
        begun = newest_checkpoint(folder.checkpoints)
        recipe = begun.recipe
        data = recipe.data
        model = ESM1(recipe.config, recipe.alphabet)
        corpus = _load(data.names, data.partitions, data.as_protein, recipe.alphabet)
        data.require_same(corpus.proteins)
        validation = _validation(corpus, recipe)
        with MetricsLog(folder.metrics, begun.rows) as log:
            _say_what(model, f"going on after step {begun.snapshot.numbers['step']:,} of", folder)
            state = new_state(model, _batches(corpus, recipe), recipe.settings)
            state.restore(begun.snapshot)
            checkpoints = Checkpoints(folder.checkpoints, options["every"], options["keep"], recipe)
            outcome = run_training(
                state, validation, recipe.settings, folder, log, checkpoints, begun
            )
    _report(outcome, state.batches.batches.fill, validation, corpus, folder)
    return outcome.stopped_by


def _absolute(name: str) -> str:
    """A file's path that holds in any folder; other names as they are."""
    return name if name in (SAMPLE, SWISSPROT, STDIN) else str(Path(name).absolute())


def _load(
    names: Sequence[str], partitions: Sequence[int], as_protein: bool, alphabet: Alphabet
) -> Corpus:
    say("📥 loading data")
    corpus = open_corpus(names, partitions, alphabet, as_protein=as_protein)
    say(f"   {corpus.summary()}")
    return corpus


def _validation(corpus: Corpus, recipe: Recipe) -> Validation:
    return Validation(
        corpus.proteins,
        corpus.train,
        corpus.valid,
        recipe.alphabet,
        max_positions=recipe.config.max_positions,
        optimal_loss=corpus.optimal_loss,
    )


def _batches(corpus: Corpus, recipe: Recipe) -> PackedBatches:
    return PackedBatches(
        corpus.proteins,
        corpus.train,
        recipe.alphabet,
        rows=recipe.rows,
        row_length=recipe.row_length,
        seed=recipe.seed,
    )


def _say_what(model: ESM1, what: str, folder: RunFolder) -> None:
    say(
        f"🚂 {what} {describe(model)} on the {mx.default_device().type.name}, "
        f"in {folder.weights.parent}"
    )


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
    model = load_model(weights_file, dtype=mx.float32)  # what small steps are added to
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
        weight_decay=options["weight_decay"],
        betas=options["betas"],
        schedule=options["schedule"],
        accumulation=options["grad_accumulation"],
        checkpointing=options["grad_checkpointing"],
        precision=options["precision"],
    )


def _report(
    outcome: Outcome, fill: float, validation: Validation, corpus: Corpus, folder: RunFolder
) -> None:
    """Say what came of it: the comparison that shows whether it learned, and where all is."""
    say(
        f"🌳 {outcome.steps:,} steps in {duration(outcome.seconds)}: "
        f"{outcome.residues / 1e6:.3g} M residues" + (f", batches {fill:.0%} full" if fill else "")
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
