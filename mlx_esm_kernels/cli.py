"""`mlx-esm`: all commands as one."""

from __future__ import annotations

import click

from . import contacts, convert, embed_command, generate, score, train, unmask


@click.group("mlx-esm")
@click.version_option(package_name="mlx-esm-kernels")
def main() -> None:
    """Train, sample and use ESM-1 protein language models with MLX."""


for module in (train, generate, unmask, convert, embed_command, score, contacts):
    main.add_command(module.command)


if __name__ == "__main__":
    main()
