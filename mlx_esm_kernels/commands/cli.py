"""`mlx-esm`: all commands as one."""

from __future__ import annotations

import click

from . import contacts, convert, doctor, fit, fuse, generate, predict, score, train, unmask, view
from . import embed as embed_command
from . import evaluate as evaluate_command


@click.group("mlx-esm")
@click.version_option(package_name="mlx-esm-kernels")
def main() -> None:
    """Train, sample and use protein language models with MLX: ESM-1, ESM-1b, ESM-1v, ESM-2."""


for module in (
    train,
    evaluate_command,
    generate,
    unmask,
    convert,
    fuse,
    embed_command,
    fit,
    predict,
    score,
    contacts,
    view,
    doctor,
):
    main.add_command(module.command)
