"""`mlx-esm`: all commands as one."""

from __future__ import annotations

import click

from . import contacts, embed_command, generate, score, train, unmask


@click.group("mlx-esm")
@click.version_option(package_name="mlx-esm-kernels")
def main() -> None:
    """Train, sample and use ESM-1 protein language models with MLX."""


main.add_command(train.command)
main.add_command(generate.command)
main.add_command(unmask.command)
main.add_command(embed_command.command)
main.add_command(score.command)
main.add_command(contacts.command)


if __name__ == "__main__":
    main()
