"""`python -m mlx_esm_kernels.train`: train a model; with no argument, on synthetic proteins."""

from __future__ import annotations

import dataclasses
import importlib.metadata
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click
import mlx.core as mx
from click.core import ParameterSource

from ..data.alphabet import Alphabet
from ..data.corpus import NAMES, Corpus, open_corpus
from ..data.packing import PackedBatches, batch_shape
from ..data.sources import STDIN
from ..distributed.ranks import Ranks, join_ranks
from ..models.config import ESM1Config
from ..models.esm1 import ESM1, PRESETS
from ..models.fingerprint import fingerprint as weights_fingerprint
from ..models.int8 import require_unquantised
from ..ops import keep_freed_memory
from ..system.console import say
from ..system.errors import UserError
from ..system.whole_file import require_new_folder
from ..training.adapting import adapt, adapted_again
from ..training.checkpoint import Checkpoint, Checkpoints, newest_checkpoint, share_checkpoint
from ..training.config_file import ConfigFile, Tables
from ..training.recipe import Adapter, DataSource, Recipe, fingerprint
from ..training.record import MetricsLog
from ..training.reports import open_reports, require_reports
from ..training.run import RunFiles, new_state, run_training
from ..training.run_folder import RunFolder, open_run_folder, reopen_run_folder
from ..training.settings import Settings
from ..training.validation import Validation
from ..weights import load_model
from .errors import errors_as_sentences, errors_of_flag, one_speaks
from .final_folder import require_final_folder, write_final_folder
from .lora_options import LORA_RATE, wanted_low_rank
from .objective import new_config, warn_of_token_dropout
from .run_config import (
    require_one_size,
    require_sizes,
    run_tables,
    sources,
    tables_as_begun,
    warn_of_own_weights,
    write_run_config,
)
from .spread_command import SpreadCommand
from .train_config import is_unsaid
from .train_options import GROUPS, train_options
from .train_text import report, say_what

# Wider models take smaller steps: the default rate is that of this width, 0.003, times it / width.
WIDTH_OF_RATE = PRESETS["small"].embed_dim
# Where more is masked, that rate keeps a small model at the frequencies of residues for long: see
# docs/training.md.
RATE_OF_MANY_MASKS = 0.5


@click.command(
    name="train", cls=SpreadCommand, groups=GROUPS, context_settings={"show_default": True}
)
@train_options
@click.pass_context
@errors_as_sentences()
def command(ctx: click.Context, /, **options: Any) -> None:
    """Train a protein language model of the ESM family (ESM-1, ESM-1b, ESM-1v, ESM-2).

    Without any option it trains a small one on synthetic protein families for about a minute, and
    compares it with the best that any model could do.

    \b
    Examples:
      mlx-esm train --data proteins.fasta --max-minutes 10
      mlx-esm train --config small-mac
      mlx-esm train --resume runs/swissprot-1
      mlx-esm train --config runs/swissprot-1/config.toml --seed 1
    """
    stopped_by = _train(ctx, **options)
    if stopped_by is not None:
        ctx.exit(128 + stopped_by)  # as shells count a process that a signal ended


def _train(ctx: click.Context, **options: Any) -> int | None:
    """Do what the options say; the number of the signal that stopped it, or None."""
    ranks = join_ranks()
    with one_speaks(ranks):
        if ranks.is_first:
            with errors_of_flag("--report-to"):
                require_reports(options["report_to"])
        begin = _begin if options["resume"] is None else _resume
        return begin(ctx, options, ranks)


def _begin(ctx: click.Context, options: dict[str, Any], ranks: Ranks) -> int | None:
    """Begin a run."""
    mx.random.seed(options["seed"])
    model, adapter = _make_model(ctx, options)
    alphabet = model.alphabet
    final = options["hugging_face"]
    if ranks.is_first:
        require_final_folder(
            final,
            model.config,
            alphabet,
            is_adapter=adapter is not None,
            made=options["weights_dir"],
        )
    names, partitions = sources(ctx)
    corpus = _load(names, partitions, options["as_protein"], alphabet)
    max_length = _max_length(model, options["max_length"], adapter)
    rows, row_length = batch_shape(
        corpus.proteins.lengths[corpus.train],
        tokens_per_batch=options["tokens_per_batch"],
        max_positions=max_length,
        num_specials=alphabet.num_specials,
    )
    data = DataSource(
        tuple(_absolute(name) for name in names),
        tuple(partitions),
        options["as_protein"],
        len(corpus.proteins),
        int(corpus.proteins.lengths.sum()),
        fingerprint(corpus.proteins),
    )
    settings = _settings(ctx, options, model.config)
    if ranks.is_first:
        warn_of_token_dropout(model.config, settings.objective)
    recipe = Recipe(
        model.config, alphabet, data, rows, row_length, options["seed"], settings, adapter
    )
    run = _Run.of(model, corpus, recipe, ranks)
    ranks.require_alike("weights (--weights-file)", weights_fingerprint(model))
    if not ranks.is_first:
        return run.train(None, None)
    # What a configuration names is only read: its run is another one, in a folder of its own.
    is_said = ctx.get_parameter_source("weights_file") is ParameterSource.COMMANDLINE
    # And so is the run of an adapter.
    goes_on = options["weights_file"] if is_said and adapter is None else None
    with (
        open_run_folder(options["weights_dir"], goes_on, label=corpus.label) as folder,
        MetricsLog(folder.metrics) as log,
    ):
        if final is not None:
            with errors_of_flag("--hugging-face"):
                require_new_folder(final)  # once more: now the folder of the run is there
        tables = run_tables(ctx, recipe, max_length)
        write_run_config(folder, tables)
        stopped_by = run.train(_files(folder, log, recipe, tables, options), None)
        write_final_folder(final, run.model, stopped_by)
        return stopped_by


def _resume(ctx: click.Context, options: dict[str, Any], ranks: Ranks) -> int | None:
    """Go on with the run of --resume."""
    own = {"resume", "every", "keep", "report_to", "hugging_face"}
    given = [p for p in ctx.command.params if p.name not in own and p.expose_value]
    for parameter in given:
        if ctx.get_parameter_source(parameter.name or "") is ParameterSource.COMMANDLINE:
            raise click.UsageError(
                f"--resume goes on with the data and settings of the run: leave out "
                f"{parameter.opts[0]}."
            )
    keep_freed_memory()
    if not ranks.is_first:
        begun = share_checkpoint(None, ranks)
        return _resumed(begun, ranks).train(None, begun)
    with reopen_run_folder(options["resume"]) as folder:
        begun = share_checkpoint(newest_checkpoint(folder.checkpoints), ranks)
        recipe = begun.recipe
        require_final_folder(
            options["hugging_face"],
            recipe.config,
            recipe.alphabet,
            is_adapter=recipe.adapter is not None,
        )
        tables = tables_as_begun(folder.config, recipe.settings)
        run = _resumed(begun, ranks)
        with MetricsLog(folder.metrics, begun.rows) as log:
            stopped_by = run.train(_files(folder, log, recipe, tables, options), begun)
        write_final_folder(options["hugging_face"], run.model, stopped_by)
        return stopped_by


def _files(
    folder: RunFolder, log: MetricsLog, recipe: Recipe, tables: Tables, options: dict[str, Any]
) -> RunFiles:
    """What the run writes, and where else it is reported."""
    checkpoints = Checkpoints(folder.checkpoints, options["every"], options["keep"], recipe)
    reports = open_reports(options["report_to"], folder, log, tables)
    return RunFiles(folder, log, checkpoints, reports, recipe.adapter)


def _resumed(begun: Checkpoint, ranks: Ranks) -> _Run:
    """The run that a checkpoint is of; its data must be as it was."""
    recipe = begun.recipe
    data = recipe.data
    corpus = _load(data.names, data.partitions, data.as_protein, recipe.alphabet)
    data.require_same(corpus.proteins)
    if recipe.adapter is None:
        model = ESM1(recipe.config, recipe.alphabet)
    else:
        model = adapted_again(recipe.adapter, recipe.settings.precision)
    return _Run.of(model, corpus, recipe, ranks)


@dataclass(frozen=True)
class _Run:
    """A run that can begin: what it is made of, none of which is on the disk yet."""

    model: ESM1
    corpus: Corpus
    recipe: Recipe
    validation: Validation
    ranks: Ranks

    @classmethod
    def of(cls, model: ESM1, corpus: Corpus, recipe: Recipe, ranks: Ranks) -> _Run:
        if recipe.rows < ranks.count:
            raise UserError(
                f"A batch has {recipe.rows} rows of {recipe.row_length:,} tokens, which "
                f"{ranks.count} processes cannot divide among them. Give --tokens-per-batch "
                f"{ranks.count * recipe.row_length} or more (of all of them together), or a "
                "smaller --max-length."
            )
        ranks.require_alike("version", importlib.metadata.version("mlx-esm-kernels"))
        ranks.require_alike("proteins (--data)", recipe.data.fingerprint)
        ranks.require_alike("settings", recipe.but_for_places())
        validation = Validation(
            corpus.proteins,
            corpus.train,
            corpus.valid,
            recipe.alphabet,
            max_positions=recipe.config.max_positions,
            optimal_loss=corpus.optimal_loss,
            with_bound=recipe.settings.objective != "mlm",
        )
        return cls(model, corpus, recipe, validation, ranks)

    def train(self, files: RunFiles | None, begun: Checkpoint | None) -> int | None:
        """From the first step or from a checkpoint; the signal that stopped it, or None.

        Where another process keeps the run there are no files.
        """
        model, corpus, recipe = self.model, self.corpus, self.recipe
        batches = PackedBatches(
            corpus.proteins,
            corpus.train,
            recipe.alphabet,
            rows=recipe.rows,
            row_length=recipe.row_length,
            seed=recipe.seed,
        )
        what, earlier_steps = "training", 0
        if begun is not None:
            what = f"going on after step {begun.snapshot.numbers['step']:,} of"
        else:
            last_step = 0 if files is None else files.log.last_step
            earlier_steps = int(self.ranks.numbers(last_step)[0])
        if files is not None:
            say_what(model, what, files.folder, self.ranks.count)
        state = new_state(
            model, batches, recipe.settings, earlier_steps=earlier_steps, ranks=self.ranks
        )
        if begun is not None:
            state.restore(begun.snapshot)
        outcome = run_training(state, self.validation, recipe.settings, files, begun, self.ranks)
        if files is not None:
            report(outcome, batches.fill, self.validation, corpus, files)
        return outcome.stopped_by


def _absolute(name: str) -> str:
    """A file's path that holds in any folder; other names as they are."""
    return name if name in (*NAMES, STDIN) else str(Path(name).absolute())


def _load(
    names: Sequence[str], partitions: Sequence[int], as_protein: bool, alphabet: Alphabet
) -> Corpus:
    say("📥 loading data")
    corpus = open_corpus(names, partitions, alphabet, as_protein=as_protein)
    say(f"   {corpus.summary()}")
    return corpus


def _make_model(ctx: click.Context, options: dict[str, Any]) -> tuple[ESM1, Adapter | None]:
    """The model to train, and the adapter where that alone is trained."""
    keep_freed_memory()  # a step frees nearly all that the next one needs again
    config: ConfigFile | None = options["config"]
    sizes = {} if config is None else config.sizes
    weights_file, objective = options["weights_file"], options["objective"]
    require_one_size(ctx)
    low_rank = wanted_low_rank(ctx, options)
    if weights_file is None:
        new = config.model_config() if config and sizes else PRESETS[options["preset"]]
        return ESM1(new_config(new, objective or new.objective, sizes)), None
    model = load_model(weights_file, dtype=mx.float32)  # what small steps are added to
    require_unquantised(model, weights_file, "trained")
    if config is not None:
        require_sizes(config, model, weights_file)
        warn_of_own_weights(config, weights_file)
    if low_rank is None:
        if objective is not None:
            model.config = dataclasses.replace(model.config, objective=objective)
        return model, None
    return model, adapt(model, weights_file, low_rank, options["precision"])


def _max_length(model: ESM1, wanted: int | None, adapter: Adapter | None) -> int:
    """Tokens to which proteins are cropped; a model without a position table may see more of them.

    It then says so in its config; that of the base of an adapter stays as it is.
    """
    config = model.config
    length = wanted or config.max_positions
    if config.has_position_table:
        return min(config.max_positions, length)
    if length > config.max_positions and adapter is None:
        model.config = dataclasses.replace(config, max_positions=length)
    return length


def _settings(ctx: click.Context, options: dict[str, Any], model: ESM1Config) -> Settings:
    num_iters, warmup, rate = (options[name] for name in ("num_iters", "warmup", "learning_rate"))
    if is_unsaid(ctx, "num_iters") and options["max_minutes"] is not None:
        num_iters = None
    if is_unsaid(ctx, "warmup") and num_iters is not None:
        warmup = min(warmup, num_iters // 10)
    objective = options["objective"] or model.objective
    if is_unsaid(ctx, "learning_rate"):
        rate = LORA_RATE if options["lora_rank"] else rate * WIDTH_OF_RATE / model.embed_dim
        rate *= 1 if objective == "mlm" or options["lora_rank"] else RATE_OF_MANY_MASKS
    return Settings(
        num_iters=num_iters,
        max_minutes=options["max_minutes"],
        learning_rate=rate,
        warmup=warmup,
        clip_norm=options["clip_norm"],
        valid_every=options["valid_every"],
        seed=options["seed"],
        weight_decay=options["weight_decay"],
        betas=options["betas"],
        optimizer=options["optimizer"],
        schedule=options["schedule"],
        accumulation=options["grad_accumulation"],
        checkpointing=options["grad_checkpointing"],
        precision=options["precision"],
        objective=objective,
    )
