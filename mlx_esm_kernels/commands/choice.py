"""An option's fixed words, and which of them was meant."""

from __future__ import annotations

import difflib
from typing import Any

import click


class Choice(click.Choice[str]):
    """click's, which asks "Did you mean ...?" as click does of options and commands."""

    def get_invalid_choice_message(self, value: Any, ctx: click.Context | None) -> str:
        """What is said of a word that is none of them."""
        said = super().get_invalid_choice_message(value, ctx)
        words = {_plain(word): word for word in self.choices}
        close = difflib.get_close_matches(_plain(str(value)), words, n=1)
        return f"{said} Did you mean {words[close[0]]!r}?" if close else said

    def get_missing_message(self, param: click.Parameter, ctx: click.Context | None) -> str:
        """On one line, as all that is said of an error."""
        return f"Choose from {', '.join(self.choices)}."


def _plain(word: str) -> str:
    return word.casefold().replace("_", "-")
