"""Batches made ahead of the step that takes them, by a thread: the very same ones."""

from __future__ import annotations

import threading
from collections import deque
from typing import Any

from .masked_batches import MaskedBatch, MaskedBatches
from .packing import PackedBatches

AHEAD = 8


class BatchesAhead:
    """As `MaskedBatches`, whose batches one thread makes ahead within a `with` block.

    Which batches come, and in which order, does not depend on the thread, nor does `place`: that
    is where the next batch is that nobody has taken yet. Outside of the block, batches are made
    when they are asked for. When it is left, the thread is over; it never keeps a process alive.

    Args:
        masked: makes the batches; nobody else may use it within the block.
        count: how many batches lie ready at most.
    """

    def __init__(self, masked: MaskedBatches, count: int = AHEAD) -> None:
        if count < 1:
            raise ValueError(f"[BatchesAhead] count must be positive; got {count}.")
        self._masked, self._count = masked, count
        self._is_open = False
        self._thread: threading.Thread | None = None
        # All that follows is shared with the thread, under this condition.
        self._changed = threading.Condition()
        self._ready: deque[tuple[MaskedBatch, dict[str, Any]]] = deque()
        self._error: BaseException | None = None
        self._is_over = False
        self._place = masked.place()

    @property
    def batches(self) -> PackedBatches:
        """The packed proteins."""
        return self._masked.batches

    def __enter__(self) -> BatchesAhead:
        self._is_open = True
        self._begin()
        return self

    def __exit__(self, *exception: object) -> None:
        self._is_open = False
        self.go_to(self.place())

    def __iter__(self) -> BatchesAhead:
        return self

    def __next__(self) -> MaskedBatch:
        """The next batch; an error of the thread that made it is raised here."""
        if self._is_open and self._thread is None:
            self._begin()
        if self._thread is None:
            return next(self._masked)
        with self._changed:
            self._changed.wait_for(lambda: self._ready or self._error is not None)
            if not self._ready:
                assert self._error is not None
                raise self._error
            batch, self._place = self._ready.popleft()
            self._changed.notify()
        return batch

    def place(self) -> dict[str, Any]:
        """Where the next batch is: see `MaskedBatches.place`."""
        return self._masked.place() if self._thread is None else self._place

    def go_to(self, place: dict[str, Any]) -> None:
        """Go on from a `place`; what lies ready is forgotten."""
        if self._thread is not None:
            with self._changed:
                self._is_over = True
                self._changed.notify()
            self._thread.join()
            self._thread = None
        self._masked.go_to(place)

    def _begin(self) -> None:
        self._ready.clear()
        self._error, self._is_over = None, False
        self._place = self._masked.place()
        self._thread = threading.Thread(target=self._work, name="batches ahead", daemon=True)
        self._thread.start()

    def _work(self) -> None:
        try:
            while True:
                batch = next(self._masked)
                with self._changed:
                    self._ready.append((batch, self._masked.place()))
                    self._changed.notify()
                    self._changed.wait_for(lambda: self._is_over or len(self._ready) < self._count)
                    if self._is_over:
                        return
        except BaseException as error:  # all of them: the loop has to hear of it
            with self._changed:
                self._error = error
                self._changed.notify()
