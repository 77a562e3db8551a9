"""The options of adapters, which the commands that train one share."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import click
from click.core import ParameterSource
from click.decorators import FC

from ..models.low_rank import KEYS, SCALE, LowRank
from .choice import Choice
from .flags import require_finite

LORA_RATE = 0.0005  # whatever the width: a product is scaled, and begins at zero


def lora_rank_option(text: str) -> Callable[[FC], FC]:
    """--lora-rank, with the help that says what the command makes of it."""
    return click.option("--lora-rank", type=click.IntRange(min=1), metavar="R", help=text)


lora_scale_option = click.option(
    "--lora-scale",
    type=click.FloatRange(min=0, min_open=True),
    callback=require_finite,
    default=SCALE,
    help="Factor of the products.",
)

lora_layers_option = click.option(
    "--lora-layers",
    type=click.IntRange(min=1),
    metavar="N",
    help="Only in the last N layers.  [default: all]",
)


def lora_keys_option(keys: Sequence[str]) -> Callable[[FC], FC]:
    """--lora-keys, of the matrices that what the command trains goes through."""
    return click.option(
        "--lora-keys",
        type=Choice(list(keys)),
        multiple=True,
        default=KEYS,
        help="Beside which matrices; several may follow.",
    )


def wanted_low_rank(ctx: click.Context, options: dict[str, Any]) -> LowRank | None:
    """What --lora-rank and its kind ask for.

    Raises:
        UsageError: they do not go together, or there is nothing to adapt.
    """
    if options["lora_rank"] is None:
        for parameter in ctx.command.params:
            name = parameter.name or ""
            is_given = ctx.get_parameter_source(name) is ParameterSource.COMMANDLINE
            if is_given and name.startswith("lora_"):
                raise click.UsageError(
                    f"{parameter.opts[0]} is of --lora-rank: give both or neither."
                )
        return None
    if options["weights_file"] is None:
        raise click.UsageError(
            "--lora-rank adapts weights that there are: give --weights-file, too."
        )
    return LowRank(
        options["lora_rank"],
        options["lora_scale"],
        options.get("lora_dropout", 0.0),
        tuple(options["lora_keys"]),
        options["lora_layers"],
    )
