"""Bars as tqdm's, that say what is done, how fast and how long it takes, in the width there is.

On a terminal a bar redraws its line, in a notebook it is a widget or redraws its text, and where
nothing can be redrawn (a file, a pipe) it is a plain line now and then.
"""

from __future__ import annotations

import os
import sys
import threading
import time
from collections.abc import Callable, MutableMapping
from contextlib import suppress
from functools import cache
from typing import Any, TextIO

from tqdm import tqdm
from tqdm.utils import disp_len

SECONDS_BEFORE = 1.0  # what is over sooner shows no bar
SECONDS_PER_LINE = 30.0  # in a file or a pipe
_LEAST_BAR = 3  # columns
_LONGEST_NAME = 32  # columns of the text before a bar
_FOREVER = 1e8  # seconds, of which nothing is said
_EXACT = 100_000  # from here on numbers are rounded


class Bar(tqdm):  # type: ignore[type-arg]
    """A line that is redrawn: name, share, bar, and as many facts as there is room for.

    The facts are how much of how much, those of `set_postfix_str` (parted by ", "), the rate and
    the time left. Where not all of them have room, how much of how much goes first, then the rate,
    then the others from the last to the first; the time left stays. With `unit=""` how much and
    the rate are none of them.
    """

    _is_shown = False

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        # tqdm itself waits for the first step, however long that takes.
        self._first = threading.Timer(options.get("delay", 0), self._appear)
        self._first.daemon = True
        if not self.disable and not self.gui and self.delay:
            self._first.start()

    @staticmethod
    def status_printer(file: Any) -> Callable[[str], None]:
        """tqdm's, which also clears what a terminal has echoed behind the line, such as ^C."""
        show = tqdm.status_printer(file)
        return lambda line: show(f"{line}\x1b[K")

    def _appear(self) -> None:
        self._is_shown = True
        self.refresh()

    def display(self, msg: str | None = None, pos: int | None = None) -> Any:
        # Else a line that is said, or a fact that is set, would bring it earlier.
        since = time.time() - getattr(self, "start_t", 0)
        self._is_shown = self._is_shown or since >= (self.delay or 0)
        return super().display(msg, pos) if self._is_shown else None

    def clear(self, nolock: bool = False) -> None:
        if self._is_shown:
            super().clear(nolock)

    def close(self) -> None:
        if hasattr(self, "_first"):
            self._first.cancel()
        if self._is_shown:  # by this tqdm knows that there is a line to clear
            self.last_print_t = max(self.last_print_t, self.start_t + (self.delay or 0))
        super().close()

    @property
    def format_dict(self) -> MutableMapping[str, Any]:
        about = super().format_dict
        width = self._width(about["ncols"])
        total = about["total"] if about["total"] and about["n"] < about["total"] + 0.5 else None
        if total is not None:
            about["n"] = min(about["n"], total)  # shares may add up to a little more
        has_bar = total is not None and width is not None
        start = about["prefix"]
        start += "" if total is None else f" {about['n'] / total:4.0%}"
        taken = disp_len(start) + (_LEAST_BAR + 3 if has_bar else 2)
        room = None if width is None else width - taken
        facts = _fitting(_facts(about, total), room)
        middle = "|{bar}| " if has_bar else ", " if total is not None else " "
        return {**about, "ncols": width, "bar_format": "{start}" + middle + "{facts}"} | {
            "start": start,
            "facts": ", ".join(facts),
        }

    def _width(self, columns: Any) -> int | None:
        """Columns to fill: one less than there are, in the last of which a cursor may wrap."""
        return (columns or 80) - 1


class Lines(Bar):
    """Plain lines on standard error, one every `SECONDS_PER_LINE`."""

    def __init__(self, *arguments: Any, **options: Any) -> None:
        # What else tqdm writes, which is for terminals, goes nowhere.
        super().__init__(*arguments, **{**options, "file": _nowhere(), "delay": 0})

    def display(self, msg: str | None = None, pos: int | None = None) -> None:
        now = time.monotonic()
        self._said = getattr(self, "_said", now)
        if msg is None and now - self._said >= SECONDS_PER_LINE:
            self._said = now
            with suppress(OSError, ValueError):  # a reader that has gone
                print(self, file=sys.stderr, flush=True)

    def _width(self, columns: Any) -> int | None:
        return None


@cache
def bar_in_notebook() -> type[Bar]:
    """A widget where there is ipywidgets, else a line that is redrawn."""
    from tqdm import notebook

    if getattr(notebook, "IProgress", None) is None:
        return Bar

    class Widget(Bar, notebook.tqdm):  # type: ignore[type-arg]
        status_printer = notebook.tqdm.status_printer  # type: ignore[assignment]

        def display(self, *arguments: Any, **options: Any) -> None:
            notebook.tqdm.display(self, *arguments, **options)  # knows of the delay itself

        def close(self) -> None:
            self.total = None  # else one that ends early would stay, in red
            super().close()

        def _width(self, columns: Any) -> int | None:
            return 100  # of the text and a bar that is none

    return Widget


def is_notebook() -> bool:
    """Whether this is the kernel of a notebook, which is no terminal but redraws."""
    ipython = sys.modules.get("IPython")
    shell = None if ipython is None else ipython.get_ipython()
    return shell is not None and "IPKernelApp" in shell.config


def short(name: str) -> str:
    """The text before a bar, less its middle where it is long."""
    if disp_len(name) <= _LONGEST_NAME:
        return name
    return f"{name[: _LONGEST_NAME // 2 - 2]}...{name[-_LONGEST_NAME // 2 + 2 :]}"


def _facts(about: MutableMapping[str, Any], total: float | None) -> list[tuple[int, str]]:
    """What there is to say, in order, and how soon each is left out: the highest number first."""
    n, unit, elapsed = about["n"], about["unit"], about["elapsed"]
    rate = about["rate"] or ((n - about["initial"]) / elapsed if elapsed else 0)
    facts = []
    units = unit if unit == "B" else f" {unit}s"
    if unit:
        facts.append((99, f"{number(n)}{units}"))
        if total is not None:
            facts[0] = (99, f"{number(n, total)}/{number(total)}{'B' if unit == 'B' else ''}")
    postfix = about["postfix"]
    facts += enumerate(postfix.split(", ") if postfix else [], start=1)
    if unit and rate:
        slow = f"{tqdm.format_sizeof(1 / rate)} s/{unit}"
        facts.append((98, f"{tqdm.format_sizeof(rate)}{units}/s" if rate >= 1 else slow))
    if total is not None and rate and max(total - n, 0) / rate < _FOREVER:
        facts.append((0, f"{tqdm.format_interval(max(total - n, 0) / rate)} left"))
    elif total is None:
        facts.append((0, tqdm.format_interval(elapsed)))
    return facts


def _fitting(facts: list[tuple[int, str]], room: int | None) -> list[str]:
    """The facts that have room together."""
    while room is not None and facts and disp_len(", ".join(text for _, text in facts)) > room:
        facts.remove(max(facts))
    return [text for _, text in facts]


def number(x: float, beside: float = 0) -> str:
    """x as a bar says it; exact where neither it nor what it is `beside` is large."""
    return f"{x:,.0f}" if max(x, beside) < _EXACT or not x else tqdm.format_sizeof(x)


@cache
def _nowhere() -> TextIO:
    return open(os.devnull, "w", encoding="utf-8")
