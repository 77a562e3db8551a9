"""Signals that end a program as a polite request: the work in hand is finished and saved first."""

from __future__ import annotations

import os
import signal
import sys
import threading
from collections.abc import Iterable
from contextlib import suppress
from types import FrameType
from typing import Any

from .console import is_interactive

_ALWAYS = (signal.SIGINT, signal.SIGTERM)
# What else ends a program: a terminal that closes, a scheduler whose time is up, a machine that
# goes down. One that is ignored (nohup) or has a handler of somebody's (a profiler) is left to it.
_WHERE_DEFAULT = tuple(
    getattr(signal, name)
    for name in ("SIGHUP", "SIGQUIT", "SIGUSR1", "SIGUSR2", "SIGALRM", "SIGXCPU", "SIGPWR")
    if hasattr(signal, name)
)
_ANSWER = b"Stopping after this step; Ctrl-C again stops at once.\n"
_CLEARED = b"\r\x1b[J"  # the bars, of which half would stay


class StopOnSignal:
    """Within this context the first signal only sets `received`; a second Ctrl-C or TERM acts.

    Others may come twice, as from a terminal that closes, and are noted once. Outside the main
    thread, where Python allows no handlers, nothing is changed.

    Attributes:
        received: the number of the first signal, or None.
    """

    def __init__(self) -> None:
        self.received: int | None = None
        self._previous: dict[int, Any] = {}

    def __enter__(self) -> StopOnSignal:
        if threading.current_thread() is threading.main_thread():
            others = [n for n in _WHERE_DEFAULT if signal.getsignal(n) == signal.SIG_DFL]
            self._previous = {n: signal.signal(n, self._note) for n in (*_ALWAYS, *others)}
        return self

    def __exit__(self, *exception: object) -> None:
        self._restore(list(self._previous))

    def only_note(self, number: int) -> None:
        """From now on this signal ends nothing, not even after this context."""
        self._previous.pop(number, None)
        signal.signal(number, self._note)

    def _note(self, number: int, frame: FrameType | None) -> None:
        if self.received is not None:
            return
        self.received = number
        self._restore(_ALWAYS)
        # The terminal may be what has gone.
        with suppress(OSError, ValueError, AttributeError):
            if sys.stderr.isatty():
                # Not `say`: a handler may run in the middle of another write to the same stream.
                start = _CLEARED if is_interactive(sys.stderr) else b"\n"
                os.write(sys.stderr.fileno(), start + _ANSWER)

    def _restore(self, numbers: Iterable[int]) -> None:
        for number in numbers:
            if number in self._previous:
                signal.signal(number, self._previous.pop(number))
