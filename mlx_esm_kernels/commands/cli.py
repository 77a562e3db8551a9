"""`mlx-esm`: all commands as one."""

from __future__ import annotations

import click

from . import (
    completion,
    contacts,
    convert,
    doctor,
    fit,
    fuse,
    generate,
    judge,
    predict,
    report,
    score,
    train,
    unmask,
    view,
)
from . import embed as embed_command
from . import evaluate as evaluate_command


@click.group("mlx-esm")
@click.version_option(package_name="mlx-esm-kernels")
def main() -> None:
    """Train, sample and use protein language models with MLX: ESM-1, ESM-1b, ESM-1v, ESM-2.

    \b
    Examples:
      mlx-esm train
      mlx-esm embed --weights-file esm2_t6_8M_UR50D p.fasta -o out.safetensors
      mlx-esm score --help
    """


for module in (
    train,
    report,
    evaluate_command,
    generate,
    unmask,
    judge,
    convert,
    fuse,
    embed_command,
    fit,
    predict,
    score,
    contacts,
    view,
    doctor,
    completion,
):
    main.add_command(module.command)
