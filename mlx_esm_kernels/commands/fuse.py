"""`python -m mlx_esm_kernels.fuse`: weights and an adapter for them, as one model."""

from __future__ import annotations

from pathlib import Path

import click

from ..models.dtypes import DTYPES
from ..ops import keep_freed_memory
from ..system.console import say
from ..system.whole_file import require_no_input
from ..weights import load_fused
from .choice import Choice
from .errors import errors_as_sentences
from .flags import adapter_option, device_flag, weights_flag
from .grouped_command import GroupedCommand
from .written_weights import require_output, to_option, write_model


@click.command("fuse", cls=GroupedCommand)
@weights_flag
@adapter_option(required=True)
@click.option(
    "-o",
    "--output",
    required=True,
    type=click.Path(path_type=Path),
    help="The file to write, NAME.safetensors; or the folder of --to hugging-face.",
)
@to_option
@click.option(
    "--dtype",
    type=Choice(list(DTYPES)),
    help="Precision of the numbers in it.  [default: that of the weights]",
)
@device_flag
@errors_as_sentences()
def command(weights_file: str, adapter: Path, output: Path, form: str, dtype: str | None) -> None:
    """Add an adapter to the weights that it is for.

    What is written is a model like any other, which needs no --adapter. Rounding aside, it gives
    what the two give together.

    \b
    Examples:
      mlx-esm fuse --weights-file W --adapter runs/family-1 -o fused.safetensors
    """
    require_output(output, form)
    require_no_input(output, weights_file, adapter)
    say(f"📥 loading {weights_file} and {adapter}")
    keep_freed_memory()
    write_model(output, load_fused(weights_file, adapter, dtype), form)
