"""`python -m mlx_esm_kernels.generate`: new proteins from a trained model."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click
import numpy as np

from ..inference.requirements import require_room, warn_long
from .errors import errors_as_sentences, errors_of_flag
from .flags import open_model
from .grouped_command import GroupedCommand
from .growing import PSEUDO_PERPLEXITY, fasta_file, grow, sampling_flags, sampling_groups


@click.command(
    "generate",
    cls=GroupedCommand,
    groups=sampling_groups("length"),
    context_settings={"show_default": True},
    epilog=PSEUDO_PERPLEXITY,
)
@sampling_flags
@click.option("--length", type=click.IntRange(min=1), default=100, help="Residues in a protein.")
@errors_as_sentences()
def command(
    weights_file: str, length: int, output: Path | None, adapter: Path | None, **flags: Any
) -> None:
    """Generate proteins: all positions start as masks and are filled one by one.

    \b
    Examples:
      mlx-esm generate --weights-file esm2_t6_8M_UR50D --length 80 -o new.fasta
      mlx-esm generate --weights-file W --num-samples 5 --temperature 0.7
    """
    file = fasta_file(output, weights_file, adapter)
    model = open_model(weights_file, adapter=adapter)
    with errors_of_flag("--length"):
        require_room(model, length, None, "")
    warn_long(model, np.array([length]), "")
    template = np.full(length, model.alphabet.mask_idx, dtype=np.int32)
    grow(model, template, file, "generated", **flags)
