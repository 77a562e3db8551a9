"""What a person sees while a command works: lines with an emoji, and progress bars.

Lines (`say`) are for reading later, so they also go to a file or a pipe. Bars (`progress`) are for
watching: on a terminal and in a notebook they are redrawn, elsewhere they are a plain line now and
then, without one control character.
"""

from __future__ import annotations

import os
import sys
import textwrap
import warnings
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from typing import Any, TextIO

from tqdm import tqdm
from tqdm.utils import disp_len

from .bars import SECONDS_BEFORE, Bar, Lines, bar_in_notebook, is_notebook, short

_is_muted = False  # see mute()
_closed: set[str] = set()  # standard streams that were closed when the process began


def say(line: str, *, err: bool = False, whole: bool = False) -> None:
    """Write one line for the person, above any bar that is on the screen.

    A terminal that is narrower gets several, broken between words.

    Args:
        line: the text, without a line end. Characters that the stream's encoding does not have
            (an emoji on an old terminal) are left out rather than being an error.
        err: write to standard error; for commands whose standard output is data.
        whole: never break it, as it has a command that is to be copied.

    A reader that has gone away (`| head`), a terminal that was closed or a full disk stop the
    lines, never the work.
    """
    stream = sys.stderr if err else sys.stdout
    if stream is None or _is_muted:
        return
    try:
        line = fit(line, stream)
        tqdm.write(line if whole else wrapped(line, stream), file=stream)
        stream.flush()
    except (OSError, ValueError):
        # Later writes, and Python's own flush at exit, then go nowhere instead of failing.
        with suppress(OSError, ValueError):
            os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())


def mute() -> None:
    """Say nothing and show no bar from now on: another process of the same work does."""
    global _is_muted
    _is_muted = True


def open_closed_streams() -> None:
    """Put the null device in place of standard streams that were closed (`>&-`).

    Otherwise the next file that is opened gets their number, and what a library prints goes there.
    """
    while (opened := os.open(os.devnull, os.O_RDWR)) <= 2:
        pass
    os.close(opened)
    for name, mode in (("stdin", "r"), ("stdout", "w"), ("stderr", "w")):
        if getattr(sys, name) is None:
            _closed.add(name)
            setattr(sys, name, open(os.devnull, mode, encoding="utf-8"))  # noqa: SIM115


def was_closed(name: str) -> bool:
    """Whether the stream of this name in `sys` was closed (`>&-`): what is written is lost."""
    return name in _closed or getattr(sys, name) is None


def progress(
    iterable: Iterable[Any] | None = None,
    *,
    total: float | None = None,
    desc: str = "",
    unit: str = "it",
    initial: float = 0,
) -> tqdm[Any]:
    """A tqdm bar on standard error, which a phase of less than a second does not show.

    Where nothing can be redrawn it is a plain line every half minute. It goes when it is closed: a
    line said afterwards takes its place.

    Args:
        iterable: what to go through; None to call `update(n)` by hand.
        total: how many `unit`s there are; None takes `len(iterable)` where it has one.
        desc: the text before the bar, for example "🚂 training"; of a long one the middle is left
            out.
        unit: what is counted, in the singular; "B" for bytes, "" for what is not said.
        initial: how many units are done already, as when a download resumes.

    Returns:
        A tqdm bar: iterate over it, or `update(n)` and `set_postfix_str(text)`; a context manager.
    """
    return bar_class()(
        iterable,
        total=total,
        desc=short(fit(desc, sys.stderr)),
        unit=unit,
        initial=initial,
        **bar_options(),
    )


def bar_class() -> type[Bar]:
    """The bars of this standard error."""
    if is_notebook():
        return bar_in_notebook()
    return Bar if is_interactive(sys.stderr) else Lines


def bar_options() -> dict[str, Any]:
    """What each bar is told of where it is shown, and when."""
    return {
        "leave": False,
        "dynamic_ncols": True,
        "delay": SECONDS_BEFORE,
        "file": sys.stderr,  # tqdm itself goes on where a terminal was closed
        "disable": _is_muted or sys.stderr is None,
    }


def is_interactive(stream: TextIO | None) -> bool:
    """Whether `stream` is a terminal that can redraw a line."""
    if stream is None or stream.closed:
        return False
    return stream.isatty() and os.environ.get("TERM") != "dumb"


def fit(line: str, stream: TextIO | None) -> str:
    """`line` less what the encoding of `stream` lacks, and less the gap that leaves in front."""
    encoding = getattr(stream, "encoding", None) or "utf-8"
    fitting = line.encode(encoding, "ignore").decode(encoding)
    return line if fitting == line else fitting.lstrip()


def wrapped(line: str, stream: TextIO | None) -> str:
    """`line` as a terminal has room for it, broken between words; for other streams as it is."""
    if stream is None or not is_interactive(stream):
        return line
    width = os.get_terminal_size(stream.fileno()).columns or 80
    if disp_len(line) <= width:
        return line
    indent = " " * (len(line) - len(line.lstrip()) + 3)
    broken = textwrap.wrap(
        line,
        width - (disp_len(line) - len(line)),  # an emoji takes two columns
        subsequent_indent=indent,
        break_long_words=False,  # paths are copied
        break_on_hyphens=False,
    )
    return "\n".join(broken)


def duration(seconds: float) -> str:
    """A span of time as a person would say it: `8 s`, `3 min 20 s`, `2 h 5 min`."""
    whole = round(seconds)
    hours, minutes, rest = whole // 3600, whole // 60 % 60, whole % 60
    if hours:
        return f"{hours} h {minutes} min"
    return f"{minutes} min {rest} s" if minutes else f"{rest} s"


@contextmanager
def warnings_as_lines() -> Iterator[None]:
    """Within it, a warning is one line on standard error, without Python's file and line number."""
    with warnings.catch_warnings():
        warnings.showwarning = _say_warning
        yield


def _say_warning(
    message: Warning | str,
    category: type[Warning],
    filename: str,
    lineno: int,
    file: TextIO | None = None,
    line: str | None = None,
) -> None:
    say(f"⚠️ {message}", err=True)
