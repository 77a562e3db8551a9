"""`mlx-esm`: train, generate, unmask and convert as one command."""

from __future__ import annotations

import click

from . import convert, generate, train, unmask


@click.group("mlx-esm")
@click.version_option(package_name="mlx-esm-kernels")
def main() -> None:
    """Train and sample ESM-1 protein language models with MLX."""


main.add_command(train.command)
main.add_command(generate.command)
main.add_command(unmask.command)
main.add_command(convert.command)


if __name__ == "__main__":
    main()
