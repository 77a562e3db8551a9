"""What our attention costs on a chip by a roofline, from the counters of its kernels.

A kernel takes as long as the roof that it hits first: matrix operations with the loads of their
fragments from threadgroup memory, exponentials, the L2 cache, memory. All of these are lower bounds
of a time; nothing else is counted but a fixed price a launch.
"""

from __future__ import annotations

import functools
from dataclasses import dataclass

import mlx.core as mx
import numpy as np

from mlx_esm_kernels import _ext
from mlx_esm_kernels.ops.tiles import Tiles

from .chips import (
    EXP2_PER_CYCLE,
    L2_BYTES_PER_CYCLE,
    SECONDS_PER_LAUNCH,
    THREADGROUP_BYTES_PER_CYCLE,
    Chip,
)
from .emulator import emulated

BLOCK = _ext.attention_block
FLOPS_OF_A_PRODUCT = 2 * 8 * 8 * 8
KERNELS = ("fwd", "bwd_dq", "bwd_dkv")
# Products of 8 x 8 x 8 for a pair of eight rows, in units of D / 8.
PRODUCTS = {"fwd": 2, "bwd_dq": 3, "bwd_dkv": 4}
FIELDS = ("device_read", "device_written", "threadgroup", "products", "exponentials")
Counts = np.ndarray  # FIELDS, float64


@dataclass(frozen=True)
class Shape:
    B: int
    H: int
    L: int
    D: int

    def __str__(self) -> str:
        return f"{self.B}x{self.H}x{self.L}x{self.D}"


@dataclass(frozen=True)
class Met:
    """What the threadgroups of one head meet: how many there are, and their block pairs."""

    groups: int
    full: int
    partial: int


def blocks_met(ids: np.ndarray | None, length: int, rows: int) -> list[Met]:
    """For each batch row of ids (B, L), what threadgroups of `rows` rows meet: the walk over the
    block map of masked_attention/metal/map.metal. None: one batch row without segments."""
    blocks = -(-length // BLOCK)
    met = []
    for row in [np.ones(length, int)] if ids is None else ids:
        padded = np.zeros(blocks * BLOCK, int)
        padded[:length] = row
        ids_of_blocks = padded.reshape(blocks, BLOCK)
        segments = [set(block.tolist()) - {0} for block in ids_of_blocks]
        one = [len(set(block.tolist())) == 1 and block[0] != 0 for block in ids_of_blocks]
        full = partial = 0
        starts = range(0, length, rows)
        for start in starts:
            own = range(start // BLOCK, min(start + rows - 1, length - 1) // BLOCK + 1)
            for column in range(blocks):
                if any(segments[i] & segments[column] for i in own):
                    whole = all(one[i] and segments[i] == segments[column] for i in own)
                    whole = whole and one[column]
                    full, partial = full + whole, partial + (not whole)
        met.append(Met(len(starts), int(full), int(partial)))
    return met


def tiles_of(kernel: str, dim: int, dtype: mx.Dtype, generation: int) -> Tiles:
    """A kernel's built-in or tuned tiles on a chip of this generation."""
    with emulated(generation):
        return _ext.attention_tiles(kernel, dim, dtype)


def run_counts(
    dim: int, dtype: mx.Dtype, generation: int, ids: np.ndarray | None, length: int
) -> dict[str, Counts]:
    """What one head does in each kernel, counted by the emulator."""
    arrays = [mx.zeros((1, 1, length, dim), dtype) for _ in range(4)]
    segments = None if ids is None else mx.array(ids)

    def attention(q: mx.array, k: mx.array, v: mx.array) -> mx.array:
        return _ext.masked_attention(q, k, v, segment_ids=segments)

    found = {}
    with emulated(generation) as device:
        mx.eval(mx.vjp(attention, arrays[:3], arrays[3:])[1])
        for kernel in KERNELS:
            counts = device.counts[f"masked_attention_{kernel}"]
            rows, tile = _ext.attention_tiles(kernel, dim, dtype)[:2]
            (met,) = blocks_met(ids, length, rows)
            pairs = (met.full + met.partial) * rows * BLOCK
            rescaled = (met.full + met.partial) * rows * BLOCK // tile if kernel == "fwd" else 0
            found[kernel] = np.array(
                [
                    # Structs of constants are held by the core.
                    sum(n for name, n in counts.read.items() if not name.startswith("constants")),
                    sum(counts.written.values()),
                    counts.threadgroup_read + counts.threadgroup_written,
                    counts.products,
                    pairs + rescaled,
                ],
                dtype=float,
            )
    return found


@functools.cache
def prices(dim: int, dtype: mx.Dtype, generation: int, segments: bool) -> dict[str, np.ndarray]:
    """What a threadgroup, a full and a partial block pair cost in each kernel: (3, FIELDS).

    Three small runs have three unknowns; dense calls have full pairs alone. Rows of padding in a
    partial block are not read, so there the price is an upper bound.
    """
    cases: list[tuple[np.ndarray | None, int]] = [(None, 64), (None, 128)]
    if segments:
        mixed = np.repeat([1, 2], [16, 48])[None]
        cases = [(np.ones((1, 64), int), 64), (np.ones((1, 128), int), 128), (mixed, 64)]
    runs = [run_counts(dim, dtype, generation, ids, length) for ids, length in cases]
    found = {}
    for kernel in KERNELS:
        rows = tiles_of(kernel, dim, dtype, generation)[0]
        met = [blocks_met(ids, length, rows)[0] for ids, length in cases]
        system = np.array([[m.groups, m.full, m.partial] for m in met], dtype=float)
        counted = np.array([run[kernel] for run in runs])
        found[kernel] = np.linalg.lstsq(system, counted, rcond=None)[0]
    return found


def counts_of(
    shape: Shape, dtype: mx.Dtype, generation: int, ids: np.ndarray | None
) -> dict[str, Counts]:
    """What each kernel does for a shape, extrapolated from `prices`. ids: (B, L), or None."""
    price = prices(shape.D, dtype, generation, ids is not None)
    found = {}
    for kernel in KERNELS:
        rows = tiles_of(kernel, shape.D, dtype, generation)[0]
        met = blocks_met(ids, shape.L, rows)
        total = np.array([[m.groups, m.full, m.partial] for m in met], dtype=float).sum(axis=0)
        heads = shape.H if ids is not None else shape.H * shape.B
        found[kernel] = heads * total @ price[kernel]
    return found


@dataclass(frozen=True)
class Cost:
    """Of a kernel of ours: seconds at each of its roofs, launches left out."""

    roofs: dict[str, float]

    @property
    def overlapped(self) -> float:
        """As if all were done at once: the first roof that it hits."""
        return max(self.roofs.values())

    @property
    def added(self) -> float:
        """As if no product were made while another's fragments are loaded.

        A product waits for the fragments that its own simdgroup has just asked for, so what is
        loaded meanwhile is up to the few other simdgroups of a core. The plain sum of these two
        needs no further number, and a real time lies between `overlapped` and it.
        """
        return max(self.roofs["matrix"] + self.roofs["threadgroup"], self.overlapped)

    @property
    def first(self) -> str:
        return max(self.roofs, key=self.roofs.__getitem__)


def our_costs(chip: Chip, shape: Shape, dtype: mx.Dtype, ids: np.ndarray | None) -> dict[str, Cost]:
    """Of each kernel, for ids (B, L) or None."""
    found = {}
    size = shape.B * shape.H * shape.L * shape.D * dtype.size
    arrays = {"fwd": 4, "bwd_dq": 6, "bwd_dkv": 6}  # read or written once each, if caches do
    for kernel, counts in counts_of(shape, dtype, chip.generation, ids).items():
        read, written, threadgroup, products, exponentials = counts
        # Rows of another head's keys do not help: what passes by comes from memory once a head.
        found[kernel] = Cost(
            {
                "matrix": products * FLOPS_OF_A_PRODUCT / chip.matrix_flops,
                "exp2": exponentials / chip.per_second(EXP2_PER_CYCLE),
                "threadgroup": threadgroup / chip.per_second(THREADGROUP_BYTES_PER_CYCLE),
                "L2": (read + written) / chip.per_second(L2_BYTES_PER_CYCLE),
                "memory": min(arrays[kernel] * size, read + written) / (chip.gb_per_s * 1e9),
            }
        )
    return found


def our_seconds(
    costs: dict[str, Cost], masked: bool, share: float = 1.0, overlapping: bool = False
) -> tuple[float, float]:
    """Forward, and forward and backward, where a share of the roofs is reached; with launches.

    Args:
        costs: of each kernel.
        masked: a block map is made first.
        share: of the roofs, up to 1.
        overlapping: take `Cost.overlapped` for `Cost.added`.
    """
    seconds = {
        kernel: (cost.overlapped if overlapping else cost.added) / share + SECONDS_PER_LAUNCH
        for kernel, cost in costs.items()
    }
    forward = seconds["fwd"] + (SECONDS_PER_LAUNCH if masked else 0.0)
    return forward, forward + seconds["bwd_dq"] + seconds["bwd_dkv"]
