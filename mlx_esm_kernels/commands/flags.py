"""What the commands that use a model share."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import click

from ..models.esm1 import ESM1
from ..ops import keep_freed_memory
from ..system.console import warnings_as_lines
from ..weights import DTYPES, load_model

WEIGHTS_HELP = "A file or folder of weights, or the name of a released model"

weights_flag = click.option("--weights-file", required=True, help=f"{WEIGHTS_HELP}.")

dtype_flag = click.option(
    "--dtype", type=click.Choice(list(DTYPES)), help="Compute in it.  [default: as stored]"
)


def open_model(weights: str, dtype: str | None = None) -> ESM1:
    """The model that --weights-file and --dtype name; WeightsError says why not."""
    keep_freed_memory()  # a pass frees nearly all that the next one needs again
    return load_model(weights, dtype=None if dtype is None else DTYPES[dtype])


@contextmanager
def plain_errors() -> Iterator[None]:
    """Within it, a ValueError ends the command with its message, and warnings are lines."""
    with warnings_as_lines():
        try:
            yield
        except ValueError as error:
            raise click.ClickException(str(error)) from None
