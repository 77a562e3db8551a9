"""The click command that all commands are: options under headings, errors as sentences."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import Any

import click

from .errors import errors_as_sentences


class GroupedCommand(click.Command):
    """Shows options under headings; those that none has, and --help, come last.

    A value that is empty is refused: as a path it would be the working folder.

    Args:
        may_be_empty: options, with their dashes, whose value may be.
        groups: by heading, the names of its options as they are typed, without the dashes. None of
            them: all options stand under one heading, as is enough for eight.
    """

    def __init__(
        self,
        *args: Any,
        groups: Mapping[str, Sequence[str]] | None = None,
        may_be_empty: Collection[str] = (),
        **named: Any,
    ) -> None:
        super().__init__(*args, **named)
        self.may_be_empty = may_be_empty
        self.groups = groups or {}

    @errors_as_sentences()
    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """As click does; what goes wrong in an option's callback is told as in the command."""
        for before, arg in zip(["", *args], args, strict=False):
            flag = before if before.startswith("-") else "the command"
            if arg.startswith("--") and arg.endswith("="):
                flag, arg = arg[:-1], ""
            if not arg and flag not in self.may_be_empty:
                raise click.UsageError(
                    f"A value of {flag} is empty, as where a variable of the shell is not set."
                )
        return super().parse_args(ctx, args)

    def format_options(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write each option once."""
        if not self.groups:
            super().format_options(ctx, formatter)
            return
        left = {
            _name(parameter): record
            for parameter in self.get_params(ctx)
            if isinstance(parameter, click.Option)
            and (record := parameter.get_help_record(ctx)) is not None
        }
        for heading, names in self.groups.items():
            with formatter.section(heading):
                formatter.write_dl([left.pop(name) for name in names])
        with formatter.section("Other options"):
            formatter.write_dl(list(left.values()))


def _name(parameter: click.Parameter) -> str:
    """What an option is called, without its dashes; of -o and --output the long one."""
    return max(parameter.opts, key=lambda opt: opt.startswith("--")).lstrip("-")
