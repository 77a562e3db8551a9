"""`mlx-esm completion`: what has a shell complete mlx-esm's commands, options and their words."""

from __future__ import annotations

import click
from click.shell_completion import get_completion_class

from .choice import Choice
from .errors import errors_as_sentences
from .grouped_command import GroupedCommand

_PROGRAM = "mlx-esm"
_VARIABLE = "_MLX_ESM_COMPLETE"  # which click looks for in the environment of mlx-esm


@click.command("completion", cls=GroupedCommand)
@click.argument("shell", metavar="SHELL", type=Choice(["bash", "zsh", "fish"]))
@click.pass_context
@errors_as_sentences()
def command(ctx: click.Context, shell: str) -> None:
    """Write the script by which SHELL (bash, zsh, fish) completes mlx-esm with the Tab key.

    It holds for new shells, once the line for yours was run.

    \b
    Examples:
      mlx-esm completion bash >> ~/.bashrc
      mlx-esm completion zsh >> ~/.zshrc
      mlx-esm completion fish > ~/.config/fish/completions/mlx-esm.fish
    """
    kind = get_completion_class(shell)
    assert kind is not None, shell
    script = kind(ctx.find_root().command, {}, _PROGRAM, _VARIABLE).source()
    click.echo(script)
