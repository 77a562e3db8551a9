"""What the processes of a piece of work must know alike: the time, and whether a signal came."""

from __future__ import annotations

import os
import signal
import struct
import threading
import time

from ..system.interrupt import StopOnSignal
from .ranks import Ranks

# After a signal, how long a process may take to hear from the others: this, and so many times the
# longest that it ever took.
PATIENCE_S, TIMES = 5.0, 3.0
_GIVES_UP = (
    "Error: process {number} of {count} got a signal, and heard no more from the others: they have "
    "ended or cannot be reached, so this one ends too. A training run goes on from its last "
    "checkpoint: --resume, with any number of processes.\n"
)


class Pulse:
    """The first one's clock, and the first signal to any of them, as of the last beat.

    A step or a validation ends, and a rate falls, by these alone: all processes take the same
    steps, and none waits for one that has stopped.

    Where one of several processes dies, MLX's launcher sends the others SIGTERM. One that waits
    for a dead one within MLX, which not every engine notices, then ends all the same. (A context
    manager, for that.)

    Args:
        ranks: the processes.
        stop: notes the signals to this one.

    Attributes:
        now: seconds of a clock that only goes forward. received: the signal's number, or None.
    """

    def __init__(self, ranks: Ranks, stop: StopOnSignal) -> None:
        self._ranks, self._stop = ranks, stop
        watched = ranks.count > 1 and threading.current_thread() is threading.main_thread()
        self._watch = _Watch(ranks) if watched else None
        self.now, self.received = 0.0, stop.received
        self._begun = time.perf_counter()
        self.beat()

    def __enter__(self) -> Pulse:
        return self

    def __exit__(self, kind: type[BaseException] | None, *exception: object) -> None:
        if self._watch is None:
            return
        if kind is None:
            self._watch.end()
        else:
            # The launcher's SIGTERM may come before this one has said why it ends; the watch stays,
            # should it never get to that.
            self._stop.only_note(signal.SIGTERM)

    def beat(self) -> None:
        """Take note of both; all processes do so between the same two pieces of work."""
        now = time.perf_counter()
        mine = struct.pack("<dq", now, self._stop.received or 0)
        found = [struct.unpack("<dq", content) for content in self._ranks.gather(mine)]
        self.now = found[0][0]
        self.received = next((signal for _, signal in found if signal), None)
        if self._watch is not None:
            self._watch.longest = max(self._watch.longest, time.perf_counter() - self._begun)
            self._begun = time.perf_counter()
            if self.received:
                self._watch.end()


class _Watch:
    """Ends this process where a signal has come and no beat has followed it in time.

    The signal is seen by a thread: Python's own handlers wait until a call into MLX returns.
    """

    def __init__(self, ranks: Ranks) -> None:
        self.longest = 0.0  # seconds between two beats
        self._ranks, self._settled = ranks, threading.Event()
        self._wakened, self._wakes = os.pipe()
        os.set_blocking(self._wakes, False)
        self._before = signal.set_wakeup_fd(self._wakes, warn_on_full_buffer=False)
        self._thread = threading.Thread(target=self._wait, daemon=True)
        self._thread.start()

    def end(self) -> None:
        """Signals are no matter of this any more."""
        if self._settled.is_set():
            return
        self._settled.set()
        signal.set_wakeup_fd(self._before)
        os.close(self._wakes)  # which ends the thread's wait
        self._thread.join()
        os.close(self._wakened)

    def _wait(self) -> None:
        if not os.read(self._wakened, 1):
            return
        if not self._settled.wait(PATIENCE_S + TIMES * self.longest):
            text = _GIVES_UP.format(number=self._ranks.number, count=self._ranks.count)
            os.write(2, text.encode())
            os._exit(1)
