"""A forked process that would hang is told so: MLX's threads do not survive a fork.

A fork copies the memory of a process and one of its threads. What MLX has queued for the others is
then waited for without end, in stock MLX as here. A process that forks before anything was computed
is not affected, nor is one that is started anew (spawn).
"""

from __future__ import annotations

import os

_used = _lost = False


def note_use() -> None:
    """Note that something is computed in this process.

    Raises:
        RuntimeError: it was forked from one in which something had been computed.
    """
    global _used
    if _lost:
        raise RuntimeError(
            "MLX was used before this process was forked, and does not survive that: start "
            "processes with spawn, multiprocessing.set_start_method('spawn'), or for a DataLoader "
            "multiprocessing_context='spawn'."
        )
    _used = True


def _in_child() -> None:
    global _lost
    _lost = _used


os.register_at_fork(after_in_child=_in_child)
