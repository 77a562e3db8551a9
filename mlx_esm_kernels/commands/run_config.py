"""The configuration of one run of `train`: what its options come to, and its config.toml."""

from __future__ import annotations

import json
import shlex
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import click
from click.core import ParameterSource

from ..models.esm1 import ESM1
from ..training.config_file import (
    CONFIG,
    ConfigFile,
    ConfigWarning,
    Tables,
    model_table,
    read_config,
    write_config,
)
from ..training.recipe import Recipe
from ..training.run_folder import WEIGHTS, RunFolder
from ..training.settings import Settings
from ..weights.loading import lasting_name
from .errors import errors_of_flag
from .train_config import training_values

# What a setting is called as a key, where that is another word.
_KEYS = {"accumulation": "grad_accumulation", "checkpointing": "grad_checkpointing"}


def sources(ctx: click.Context) -> tuple[Sequence[str], Sequence[int]]:
    """Files and partitions to train on: those of the command line take the place of all others.

    Raises:
        UsageError: a configuration says that there is nothing.
    """
    data, partitions = ctx.params["data"], ctx.params["dataset_partitions"]
    if not data and not partitions:
        raise click.UsageError(
            f"{ctx.params['config'].name}, [data]: expected files in data or numbers in "
            "dataset_partitions; both are empty."
        )
    said = [_explicitness(ctx, name) for name in ("data", "dataset_partitions")]
    if partitions and said[1] > said[0]:
        return [], partitions
    return data, partitions if said[1] == said[0] or not data else []


def _explicitness(ctx: click.Context, name: str) -> int:
    order = (ParameterSource.DEFAULT, ParameterSource.DEFAULT_MAP, ParameterSource.COMMANDLINE)
    source = ctx.get_parameter_source(name)
    return order.index(source) if source in order else 0


def require_one_size(ctx: click.Context) -> None:
    """Refuse two sizes of one model.

    Raises:
        UsageError: --preset has --weights-file or the sizes of a configuration beside it.
    """
    config: ConfigFile | None = ctx.params["config"]
    sizes = [] if config is None else list(config.sizes)
    said = {name: ctx.get_parameter_source(name) for name in ("preset", "weights_file")}
    by_hand, by_file = ParameterSource.COMMANDLINE, ParameterSource.DEFAULT_MAP
    preset = ctx.params["preset"]
    if said["preset"] is by_hand and ctx.params["weights_file"] is not None:
        raise click.UsageError(
            "--preset is the size of a new model, but --weights-file brings one with a size: "
            "leave one of them out."
        )
    if said["preset"] is by_hand and config is not None and sizes:
        raise click.UsageError(
            f"--preset {preset} is the size of a new model, but {config.name}, [model] has "
            f"{', '.join(sizes[:3])}{' ...' if sizes[3:] else ''}: leave one of them out."
        )
    if said["preset"] is by_file and config is not None:
        others = sizes + (["weights_file"] if said["weights_file"] is by_file else [])
        if others:
            raise click.UsageError(
                f"{config.name}, [model] preset: expected it alone, as it is the size of a new "
                f"model; got {json.dumps(preset)} and {others[0]}."
            )


def require_sizes(config: ConfigFile, model: ESM1, weights_file: str) -> None:
    """Refuse weights of another model than that of the configuration.

    Raises:
        UsageError: they differ in a size or switch.
    """
    found = model_table(model.config, model.alphabet)
    for key, value in config.sizes.items():
        if value != found.get(key):
            raise click.UsageError(
                f"{config.name}, [model] {key}: expected {json.dumps(found.get(key))}, as the "
                f"weights of {weights_file} have; got {json.dumps(value)}."
            )


def warn_of_own_weights(config: ConfigFile, weights_file: str) -> None:
    """Say that a run which trained its own weights on cannot be repeated from them."""
    if config.path is None or config.path.name != CONFIG:
        return
    own = config.path.with_name(WEIGHTS)
    if own.exists() and Path(weights_file).exists() and own.samefile(weights_file):
        warnings.warn(
            f"{weights_file} has been trained on by the run of {config.name} itself: this one "
            "begins with what it is now, and its numbers will be others.",
            ConfigWarning,
            stacklevel=2,
        )


def tables_as_begun(config: Path, settings: Settings) -> Tables:
    """What the config.toml of a run that goes on says; empty where there is none.

    Raises:
        UsageError: it was changed since: one of its settings is not that of the run, and --resume
            would not obey it.
    """
    if not config.is_file():
        return {}  # of a version that wrote none
    with errors_of_flag("--resume"):
        tables = read_config(str(config)).tables
    begun_with = _settings_by_key(settings)
    for key, value in tables.get("training", {}).items():
        begun = begun_with.get(key, value)
        begun = list(begun) if isinstance(begun, tuple) else begun
        if begun != value:
            raise click.UsageError(
                f"{config}, [training] {key}: expected {json.dumps(begun)}, with which the run was "
                f"begun and goes on; got {json.dumps(value)}. Put that back, or begin a new run "
                f"with --config {config}."
            )
    return tables


def run_tables(ctx: click.Context, recipe: Recipe, max_length: int) -> Tables:
    """All that a run is begun with, as tables and keys.

    Args:
        ctx: has the options.
        recipe: what came of them.
        max_length: in tokens.
    """
    weights, data = ctx.params["weights_file"], recipe.data
    model: dict[str, Any] = {}
    if weights is not None:
        model["weights_file"] = lasting_name(weights)
    return {
        "model": {**model, **model_table(recipe.config, recipe.alphabet)},
        "data": {
            "data": list(data.names),
            "dataset_partitions": list(data.partitions),
            "as_protein": data.as_protein,
            "max_length": max_length,
        },
        "training": training_values(ctx, _settings_by_key(recipe.settings)),
    }


def write_run_config(folder: RunFolder, tables: Tables) -> None:
    """Write config.toml into the folder of a run.

    Raises:
        OutputError: it cannot be written.
    """
    remarks = {}
    if "max_minutes" in tables["training"]:
        remarks["max_minutes"] = "how many steps that is depends on the machine"
    if "hugging_face" in tables["training"]:
        remarks["hugging_face"] = "of this run alone: another one needs another, or none"
    weights = tables["model"].get("weights_file")
    if weights is not None and folder.weights.exists() and folder.weights.samefile(weights):
        remarks["weights_file"] = "as it was then: this run has trained it on"
    write_config(
        folder.config,
        tables,
        remarks,
        "All that this run was begun with. To do it again, in a folder of its own:\n"
        f"  mlx-esm train --config {shlex.quote(str(folder.config))}\n"
        "--resume takes checkpoint_every, keep, report_to and hugging_face from here; the rest "
        "stays as it was.",
    )


def _settings_by_key(settings: Settings) -> dict[str, Any]:
    return {_KEYS.get(name, name): value for name, value in vars(settings).items()}
