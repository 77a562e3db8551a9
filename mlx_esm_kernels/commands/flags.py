"""The flags that several commands share."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click
import mlx.core as mx
from click.decorators import FC

from ..inference.requirements import LONGS
from ..models.dtypes import DTYPES
from ..models.esm1 import ESM1
from ..ops import keep_freed_memory
from ..weights import load_model
from .choice import Choice

WEIGHTS_HELP = (
    "A file or folder of weights (ESM-1, ESM-1b, ESM-1v, ESM-2), or the name of a model, released "
    "or on the Hugging Face Hub"
)

weights_flag = click.option("--weights-file", required=True, help=f"{WEIGHTS_HELP}.")


def adapter_option(*, required: bool) -> Callable[[FC], FC]:
    """--adapter, of every command that uses weights."""
    return click.option(
        "--adapter",
        required=required,
        type=click.Path(path_type=Path),
        metavar="DIR",
        help="A folder with a low-rank adapter (LoRA) for these weights.",
    )


adapter_flag = adapter_option(required=False)

dtype_flag = click.option(
    "--dtype", type=Choice(list(DTYPES)), help="Compute in it.  [default: as stored]"
)


def _choose_device(ctx: click.Context, parameter: click.Parameter, name: str | None) -> None:
    if name is None:
        return
    device = mx.Device(getattr(mx, name))
    if not mx.is_available(device):
        raise click.BadParameter(
            "MLX has no GPU on this machine; leave it out, or say cpu.", param_hint="--device"
        )
    mx.set_default_device(device)


as_protein_flag = click.option(
    "--as-protein",
    is_flag=True,
    help="Read what looks like nucleotides or an alignment all the same, a residue a letter.",
)


def long_flag(windows: str) -> Callable[[FC], FC]:
    """--long, of every command that can see a protein in windows.

    Args:
        windows: what the help says of them, after "seen in windows of that many tokens".
    """
    return click.option(
        "--long",
        type=Choice(LONGS),
        default="error",
        help="Long proteins. error: refused where they are longer than the position table; a model "
        "without one (ESM-1, ESM-2) takes any of them whole, though it was trained on at most "
        f"1,024 tokens. window: of any model, seen in windows of that many tokens{windows}",
    )


# Of every command that computes. It is obeyed where it is read, so commands have no argument of it.
device_flag = click.option(
    "--device",
    type=Choice(["cpu", "gpu"]),
    callback=_choose_device,
    expose_value=False,
    help="Compute on it.  [default: gpu where MLX has one]",
)


def require_finite(ctx: click.Context, parameter: click.Parameter, value: Any) -> Any:
    """The value, one number or several; nan and inf, which are floats to click, are refused."""
    for number in value if isinstance(value, tuple) else (value,):
        if number is not None and not math.isfinite(number):
            raise click.BadParameter(f"expected a finite number; got {number}.", ctx, parameter)
    return value


def open_model(weights: str, dtype: str | None = None, adapter: Path | None = None) -> ESM1:
    """The model that --weights-file, --dtype and --adapter name; WeightsError says why not."""
    keep_freed_memory()  # a pass frees nearly all that the next one needs again
    wanted = None if dtype is None else DTYPES[dtype]
    return load_model(weights, dtype=wanted, adapter=adapter)


def model_name(weights: str, adapter: Path | None) -> str:
    """What a model is called in results: by its weights, and the adapter that it has."""
    return weights if adapter is None else f"{weights} with adapter {adapter}"


def require_one_base(weights_files: tuple[str, ...], adapter: Path | None) -> None:
    """Refuse an adapter beside several weights: it is of one of them."""
    if adapter is not None and len(weights_files) != 1:
        raise click.UsageError("--adapter needs exactly one --weights-file, its base.")
