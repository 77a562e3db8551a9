"""`python -m mlx_esm_kernels.train`: train a model; with no argument, on synthetic proteins."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click
import mlx.core as mx
from click.core import ParameterSource

from ..data.alphabet import Alphabet
from ..data.corpus import SAMPLE, SWISSPROT, Corpus, open_corpus
from ..data.packing import PackedBatches, batch_shape
from ..data.sources import STDIN
from ..models.esm1 import ESM1, PRESETS
from ..ops import keep_freed_memory
from ..system.console import say
from ..training.checkpoint import Checkpoint, Checkpoints, Every, newest_checkpoint
from ..training.recipe import DataSource, Recipe, fingerprint
from ..training.record import MetricsLog
from ..training.run import new_state, run_training
from ..training.run_folder import RunFolder, open_run_folder, reopen_run_folder
from ..training.settings import Settings
from ..training.validation import Validation
from ..weights import load_model
from .errors import errors_as_sentences
from .spread_command import SpreadCommand
from .train_options import train_options
from .train_text import report, say_what

# The default run: about a minute on two cores.
NUM_ITERS = 1000
WARMUP = 100
# Wider models take smaller steps: 0.003 for small, 0.0006 for medium, 0.00016 for the released.
RATE_TIMES_WIDTH = 0.2


@click.command(name="train", cls=SpreadCommand, context_settings={"show_default": True})
@train_options
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
    run = _Run.of(model, corpus, recipe)
    with (
        open_run_folder(
            options["weights_dir"], options["weights_file"], label=corpus.label
        ) as folder,
        MetricsLog(folder.metrics) as log,
    ):
        return run.train(folder, log, options["every"], options["keep"], None)


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
        run = _Run.of(model, corpus, recipe)
        with MetricsLog(folder.metrics, begun.rows) as log:
            return run.train(folder, log, options["every"], options["keep"], begun)


@dataclass(frozen=True)
class _Run:
    """A run that can begin: what it is made of, none of which is on the disk yet."""

    model: ESM1
    corpus: Corpus
    recipe: Recipe
    validation: Validation

    @classmethod
    def of(cls, model: ESM1, corpus: Corpus, recipe: Recipe) -> _Run:
        validation = Validation(
            corpus.proteins,
            corpus.train,
            corpus.valid,
            recipe.alphabet,
            max_positions=recipe.config.max_positions,
            optimal_loss=corpus.optimal_loss,
        )
        return cls(model, corpus, recipe, validation)

    def train(
        self, folder: RunFolder, log: MetricsLog, every: Every, keep: int, begun: Checkpoint | None
    ) -> int | None:
        """From the first step or from a checkpoint; the signal that stopped it, or None."""
        model, corpus, recipe = self.model, self.corpus, self.recipe
        batches = PackedBatches(
            corpus.proteins,
            corpus.train,
            recipe.alphabet,
            rows=recipe.rows,
            row_length=recipe.row_length,
            seed=recipe.seed,
        )
        if begun is None:
            say_what(model, "training", folder)
            state = new_state(model, batches, recipe.settings, earlier_steps=log.last_step)
        else:
            step = begun.snapshot.numbers["step"]
            say_what(model, f"going on after step {step:,} of", folder)
            state = new_state(model, batches, recipe.settings)
            state.restore(begun.snapshot)
        checkpoints = Checkpoints(folder.checkpoints, every, keep, recipe)
        outcome = run_training(
            state, self.validation, recipe.settings, folder, log, checkpoints, begun
        )
        report(outcome, batches.fill, self.validation, corpus, folder)
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
