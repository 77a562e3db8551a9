"""A click command whose help lists its options under headings."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import click

from .spread_command import SpreadCommand


class GroupedCommand(SpreadCommand):
    """Shows options under headings; those that none has, and --help, come last.

    Args:
        groups: by heading, the names of its options as they are typed, without the dashes.
    """

    def __init__(self, *args: Any, groups: Mapping[str, Sequence[str]], **named: Any) -> None:
        super().__init__(*args, **named)
        self.groups = groups

    def format_options(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write each option once."""
        left = {
            parameter.opts[0].removeprefix("--"): record
            for parameter in self.get_params(ctx)
            if (record := parameter.get_help_record(ctx)) is not None
        }
        for heading, names in self.groups.items():
            with formatter.section(heading):
                formatter.write_dl([left.pop(name) for name in names])
        with formatter.section("Other options"):
            formatter.write_dl(list(left.values()))
