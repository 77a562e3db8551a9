"""The processes that work on one thing together, as `mlx.launch` starts them: one on each device.

MLX has the engine (ring, MPI, JACCL, NCCL). Here is what this package asks of it.
"""

from __future__ import annotations

import hashlib
import os
import struct
from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import islice
from pathlib import Path
from typing import Any, TypeVar

import mlx.core as mx
import numpy as np
from mlx.nn.utils import average_gradients

from ..system.errors import UserError

_Piece = TypeVar("_Piece")
# By size of a number: what its bits are summed as, so that not even the sign of a zero is lost.
_BITS = {1: mx.uint8, 2: mx.uint16, 4: mx.uint32, 8: mx.uint64}


class Ranks:
    """All of the processes, seen from one of them. All take the same calls in the same order.

    Where one has died, or cannot be reached, a call raises RuntimeError, which begins with the name
    of the engine in brackets.

    Args:
        group: of mx.distributed; None: this process alone.

    Attributes:
        number: of this process, from 0. count: of all.
    """

    def __init__(self, group: mx.distributed.Group | None = None) -> None:
        self._group = group
        self.number = 0 if group is None else group.rank()
        self.count = 1 if group is None else group.size()

    @property
    def is_first(self) -> bool:
        """Whether this is the one that speaks and writes."""
        return self.number == 0

    def gather(self, content: bytes) -> list[bytes]:
        """What each of them has given, in the order of their numbers."""
        if self.count == 1:
            return [content]
        sizes = self._gather(np.frombuffer(struct.pack("<q", len(content)), np.uint8))
        lengths = sizes.view("<i8").reshape(-1).tolist()
        padded = np.zeros(max(lengths), np.uint8)
        padded[: len(content)] = np.frombuffer(content, np.uint8)
        rows = self._gather(padded) if len(padded) else np.zeros((self.count, 0), np.uint8)
        return [row[:length].tobytes() for row, length in zip(rows, lengths, strict=True)]

    def of_first(self, content: bytes) -> bytes:
        """What the first one has given; that of the others is left aside."""
        return self.gather(content if self.is_first else b"")[0]

    def in_turns(
        self, pieces: Iterable[_Piece], work: Callable[[_Piece], bytes]
    ) -> Iterator[tuple[_Piece, bytes]]:
        """Each piece and what `work` makes of it, in order; every process does some of it.

        Args:
            pieces: the same for all processes.
            work: is called by one process for each piece.
        """
        pieces = iter(pieces)
        while some := list(islice(pieces, self.count)):
            mine = work(some[self.number]) if self.number < len(some) else b""
            yield from zip(some, self.gather(mine), strict=False)  # fewer at the end

    def numbers(self, value: float) -> list[float]:
        """The number that each of them has given."""
        return [struct.unpack("<d", found)[0] for found in self.gather(struct.pack("<d", value))]

    def arrays_of_first(self, arrays: Sequence[mx.array]) -> list[mx.array]:
        """The first one's arrays, bit for bit; the others give arrays of the same shapes."""
        if self.count == 1:
            return list(arrays)
        found = []
        for array in arrays:
            bits = array.view(_BITS[array.dtype.size])
            mine = bits if self.is_first else mx.zeros_like(bits)
            found.append(mx.distributed.all_sum(mine, group=self._group).view(array.dtype))
        return _arrived(found)

    def mean(self, arrays: list[mx.array]) -> list[mx.array]:
        """The mean of each array over the processes, many small ones at a time."""
        if self.count == 1:
            return arrays
        return _arrived(average_gradients(arrays, self._group))

    def require_alike(self, what: str, content: Any) -> None:
        """Refuse processes that differ in something, `content` by its repr.

        Raises:
            UserError: they do.
        """
        digests = self.gather(hashlib.blake2b(repr(content).encode(), digest_size=16).digest())
        others = [str(i) for i, digest in enumerate(digests) if digest != digests[0]]
        if others:
            raise UserError(
                f"All processes must have the same {what}, on every machine; process "
                f"{', '.join(others)} of {self.count} has another than process 0."
            )

    def _gather(self, row: np.ndarray) -> np.ndarray:
        """(N,) uint8 of each -> (count, N)."""
        found = mx.distributed.all_gather(mx.array(row)[None], group=self._group)
        return np.array(_arrived([found])[0])


def join_ranks() -> Ranks:
    """Those that `mlx.launch` has started; this process alone where it has not.

    Raises:
        UserError: they cannot be reached.
    """
    hosts = os.environ.get("MLX_HOSTFILE")
    if hosts is not None and Path(hosts).is_file() and not Path(hosts).read_text().strip():
        return Ranks()  # what MLX's launcher writes for a ring of one, which is none
    launched = "MLX_RANK" in os.environ
    try:
        group = mx.distributed.init(strict=launched)
    except RuntimeError as error:
        raise UserError(
            f"The other processes of mlx.launch cannot be reached: {error}. See its --backend, its "
            "--hostfile, and whether a firewall is between the machines."
        ) from None
    return Ranks(group if group.size() > 1 else None)


def _arrived(arrays: list[mx.array]) -> list[mx.array]:
    """Evaluated ones. RuntimeError where some of it never came."""
    mx.eval(arrays)
    # MLX notes that a transfer has failed with the stream, and counts an array as evaluated without
    # looking there where the failure is the earlier of the two: what is in it is anything.
    mx.synchronize(mx.default_stream(mx.cpu))
    return arrays
