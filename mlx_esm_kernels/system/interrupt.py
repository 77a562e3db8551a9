"""Ctrl-C as a polite request: the work in hand is finished and saved first."""

from __future__ import annotations

import os
import signal
import sys
import threading
from types import FrameType
from typing import Any

_SIGNALS = (signal.SIGINT, signal.SIGTERM)


class StopOnSignal:
    """Within this context the first SIGINT or SIGTERM only sets `received`; a second one acts.

    Outside the main thread, where Python allows no handlers, nothing is changed.

    Attributes:
        received: the number of the signal, or None.
    """

    def __init__(self) -> None:
        self.received: int | None = None
        self._previous: dict[int, Any] = {}

    def __enter__(self) -> StopOnSignal:
        if threading.current_thread() is threading.main_thread():
            self._previous = {number: signal.signal(number, self._note) for number in _SIGNALS}
        return self

    def __exit__(self, *exception: object) -> None:
        self._restore()

    def _note(self, number: int, frame: FrameType | None) -> None:
        self.received = number
        self._restore()
        if sys.stderr.isatty():
            # Not `say`: a handler may run in the middle of another write to the same stream.
            os.write(
                sys.stderr.fileno(), b"\nStopping after this step; Ctrl-C again stops at once.\n"
            )

    def _restore(self) -> None:
        for number, handler in self._previous.items():
            signal.signal(number, handler)
        self._previous = {}
