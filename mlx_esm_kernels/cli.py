"""`mlx-esm`: train, generate and unmask as one command."""

from __future__ import annotations

import click

from . import generate, train, unmask


@click.group("mlx-esm")
@click.version_option(package_name="mlx-esm-kernels")
def main() -> None:
    """Train and sample ESM-1 protein language models with MLX."""


main.add_command(train.command)
main.add_command(generate.command)
main.add_command(unmask.command)


if __name__ == "__main__":
    main()
