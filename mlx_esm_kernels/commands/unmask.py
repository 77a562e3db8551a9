"""`python -m mlx_esm_kernels.unmask`: fill the masked residues of a protein."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click
import numpy as np

from ..data.templates import parse_template
from ..inference.requirements import require_room, warn_long
from .errors import errors_as_sentences, errors_of_flag
from .flags import open_model
from .grouped_command import GroupedCommand
from .growing import (
    EPILOG,
    Growing,
    asked_sampling,
    fasta_file,
    grow,
    sampling_flags,
    sampling_groups,
    weights_name,
)


@click.command(
    "unmask",
    cls=GroupedCommand,
    groups=sampling_groups("seq", "num-samples"),
    may_be_empty=["--seq"],  # it has its own sentence
    context_settings={"show_default": True},
    epilog=EPILOG,
)
@sampling_flags
@click.option(
    "--seq", required=True, help="Residues and masks; each of * _ <mask> is one mask: MK*T<mask>_"
)
@errors_as_sentences()
def command(
    weights_file: str,
    seq: str,
    num_samples: int,
    output: Path | None,
    adapter: Path | None,
    **flags: Any,
) -> None:
    """Fill the masks of a protein; the other residues stay as they are.

    \b
    Examples:
      mlx-esm unmask --weights-file esm2_t6_8M_UR50D --seq 'MKTAY<mask>AKQ**SF'
      mlx-esm unmask --weights-file W --seq 'MK____AKQ' --sampler gibbs --rounds 5
    """
    file = fasta_file(output, weights_file, adapter)
    sampling = asked_sampling(**flags)
    model = open_model(weights_file, adapter=adapter)
    with errors_of_flag("--seq"):
        template = parse_template(seq, model.alphabet)
        require_room(model, len(template), None, "")
    warn_long(model, np.array([len(template)]), "")
    names = weights_name(weights_file, adapter)
    grow(model, Growing("unmasked", [template] * num_samples, None, names), sampling, file)
