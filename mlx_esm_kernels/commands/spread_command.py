"""A click command whose repeatable options take several values after one flag."""

from __future__ import annotations

from typing import Any

import click

from .grouped_command import GroupedCommand


class SpreadCommand(GroupedCommand):
    """Lets `--data A B C` stand for `--data A --data B --data C`, as `--data *.fasta` needs.

    It holds for every option with `multiple=True`. An option of whole numbers or of fixed words
    takes those that follow and leaves the rest: in `--layers -1 33 proteins.fasta` the last one is
    an argument.
    """

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        repeatable = {
            flag: option
            for option in self.params
            if isinstance(option, click.Option) and option.multiple
            for flag in option.opts
        }
        spread: list[str] = []
        flag = None  # the one whose values are being gathered
        for arg in args:
            if flag is not None and _is_value(arg, repeatable[flag].type):
                spread += [arg] if spread[-1] == flag else [flag, arg]
            else:
                name = arg.partition("=")[0]
                flag = name if name in repeatable else None
                spread.append(arg)
        return super().parse_args(ctx, spread)


def _is_value(arg: str, kind: Any) -> bool:
    if isinstance(kind, click.types.IntParamType):
        return arg.removeprefix("-").isdecimal()
    if isinstance(kind, click.Choice):
        return arg in kind.choices
    return arg == "-" or not arg.startswith("-")
