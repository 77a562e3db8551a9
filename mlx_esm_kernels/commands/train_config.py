"""`--config` of `train`: which option is which key of a TOML file, and back."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import click
from click.core import ParameterSource

from ..training.checkpoint import Every
from ..training.config_file import CONFIG, MODEL_KEYS, ConfigFile, read_config
from .errors import errors_of_flag

_TABLES = {
    "model": ("preset", "weights_file"),
    "data": ("data", "dataset_partitions", "as_protein", "max_length"),
}
# What a run is called and where it is made belong to this one, not to what can be repeated.
_COMMAND_LINE_ONLY = {"config", "resume", "weights_dir", "device"}
# What may be another in the second part of a run: no number depends on it.
OF_EACH_PART = ("checkpoint_every", "keep", "report_to", "hugging_face")
_KINDS: Mapping[type, tuple[str, tuple[type, ...]]] = {
    click.types.IntParamType: ("whole number", (int,)),
    click.types.FloatParamType: ("number", (int, float)),
    click.types.StringParamType: ("text", (str,)),
    click.types.Path: ("path", (str,)),
}


def take_config(
    ctx: click.Context, parameter: click.Parameter, name: str | None
) -> ConfigFile | None:
    """The callback of --config: its values stand behind those of the command line."""
    if name is None:
        return None
    with errors_of_flag("--config"):
        config = read_config(name)
        ctx.default_map = _values(ctx, config)
    return config


def take_resumed(ctx: click.Context, parameter: click.Parameter, run: Path | None) -> Path | None:
    """The callback of --resume: how often and where to report is as it was, unless it is said."""
    if run is not None and (run / CONFIG).is_file():
        with errors_of_flag("--resume"):
            values = _values(ctx, read_config(str(run / CONFIG)))
        names = {option.name for key, option in _options(ctx) if key in OF_EACH_PART}
        ctx.default_map = {name: value for name, value in values.items() if name in names}
    return run


def is_unsaid(ctx: click.Context, name: str) -> bool:
    """Whether neither the command line nor a configuration has the option."""
    return ctx.get_parameter_source(name) is ParameterSource.DEFAULT


def training_values(ctx: click.Context, found: Mapping[str, Any]) -> dict[str, Any]:
    """What [training] says of this run.

    Args:
        ctx: has the options.
        found: by key, what came of options that depend on others.
    """
    is_lora = ctx.params["lora_rank"] is not None  # otherwise nothing is said of its kind
    values = {
        key: found[key] if key in found else ctx.params[option.name or ""]
        for key, option in _options(ctx)
        if _table_of(key) == "training" and (is_lora or not key.startswith("lora_"))
    }
    return {key: _as_toml(value) for key, value in values.items() if value is not None}


def _as_toml(value: Any) -> Any:
    if isinstance(value, Path):
        return str(value)
    if isinstance(value, Every):
        if value.seconds is not None:
            return f"{value.seconds:g}s" if value.seconds % 60 else f"{value.seconds / 60:g}m"
        return "never" if value.steps is None else value.steps
    return list(value) if isinstance(value, (list, tuple)) else value


def _options(ctx: click.Context) -> Iterator[tuple[str, click.Option]]:
    """Those that a configuration may have, by their keys."""
    for option in ctx.command.params:
        if isinstance(option, click.Option):
            key = option.opts[0].removeprefix("--").replace("-", "_")
            if key not in _COMMAND_LINE_ONLY:
                yield key, option


def _table_of(key: str) -> str:
    return next((table for table, keys in _TABLES.items() if key in keys), "training")


def _values(ctx: click.Context, config: ConfigFile) -> dict[str, Any]:
    """By the names of the options, what a configuration says; ConfigError where it is wrong."""
    options = dict(_options(ctx))
    known: dict[str, list[str]] = {"model": list(MODEL_KEYS), "data": [], "training": []}
    for key in options:
        known[_table_of(key)].append(key)
    said = "this belongs on the command line: --{}."
    elsewhere = {key: said.format(key.replace("_", "-")) for key in _COMMAND_LINE_ONLY}
    config.require_keys(known, elsewhere)
    if config.sizes:
        config.model_config()  # for what it says of sizes that are none
    return {
        options[key].name or "": _value(ctx, config, table, key, options[key], value)
        for table, values in config.tables.items()
        for key, value in values.items()
        if key in options
    }


def _value(
    ctx: click.Context, config: ConfigFile, table: str, key: str, option: click.Option, value: Any
) -> Any:
    """A value that click will take as it takes the text of the command line."""
    expected, kinds, is_list = _expected(key, option)
    if option.multiple and type(value) in kinds:
        value = [value]  # data = "swissprot" stands for a list of one
    items = value if is_list and isinstance(value, list) else [value]
    is_kind = isinstance(value, list) == is_list and all(type(item) in kinds for item in items)
    if not is_kind or any(isinstance(item, float) and not math.isfinite(item) for item in items):
        raise config.error(table, key, f"expected {expected}", value)
    try:
        option.type_cast_value(ctx, value)
    except click.BadParameter:
        raise config.error(table, key, f"expected {expected}", value) from None
    try:
        option.process_value(ctx, value)
    except click.BadParameter as error:
        raise config.error(table, key, error.message.partition(";")[0], value) from None
    return value


def _expected(key: str, option: click.Option) -> tuple[str, tuple[type, ...], bool]:
    """What an option takes in words and as types, and whether it takes a list of them."""
    if option.is_flag:
        return "true or false", (bool,), False
    if key == "checkpoint_every":
        return 'steps such as 500, or "90s", "15m", "2h", "never"', (int, str), False
    if key == "dataset_partitions":
        return "a list of partition numbers such as [1, 2, 3]", (int,), True
    kind, a_list = option.type, option.multiple or option.nargs > 1
    if isinstance(kind, click.Choice):
        what = "one of " + ", ".join(json.dumps(one) for one in kind.choices)
        return f"a list, each {what}" if a_list else what, (str,), a_list
    word, types = next(found for of, found in _KINDS.items() if isinstance(kind, of))
    numbers = f"{option.nargs} {word}s" if option.nargs > 1 else f"a list of {word}s"
    return (numbers if a_list else f"a {word}") + _range(kind), types, a_list


def _range(kind: Any) -> str:
    low, high = getattr(kind, "min", None), getattr(kind, "max", None)
    words = [] if low is None else [f"{'above' if kind.min_open else 'of at least'} {low:g}"]
    words += [] if high is None else [f"{'below' if kind.max_open else 'at most'} {high:g}"]
    return " " + " and ".join(words) if words else ""
