"""What attention costs on a chip by a roofline: our kernels from their counters, MLX by its passes.

A kernel takes as long as the roof that it hits first: matrix operations, exponentials, threadgroup
memory, the L2 cache, memory. All of these are lower bounds of a time; no overlap is lost, nothing
else is counted but a fixed price a launch. Both sides are treated alike.
"""

from __future__ import annotations

import functools
from dataclasses import dataclass

import mlx.core as mx
import numpy as np

from mlx_esm_kernels import _ext

from .chips import (
    EXP2_PER_CYCLE,
    L2_BYTES_PER_CYCLE,
    SLC_TIMES_MEMORY,
    THREADGROUP_BYTES_PER_CYCLE,
    Chip,
)
from .emulator import emulated

BLOCK = _ext.attention_block
FLOPS_OF_A_PRODUCT = 2 * 8 * 8 * 8
KERNELS = ("fwd", "bwd_dq", "bwd_dkv")
SECONDS_PER_LAUNCH = 3e-6
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


def tiles_of(kernel: str, dim: int, dtype: mx.Dtype, generation: int) -> tuple[int, int]:
    """Rows a threadgroup owns, and rows it stages at a time, on a chip of this generation."""
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
            rows, tile = _ext.attention_tiles(kernel, dim, dtype)
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
        rows, _ = tiles_of(kernel, dim, dtype, generation)
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
        rows, _ = tiles_of(kernel, shape.D, dtype, generation)
        met = blocks_met(ids, shape.L, rows)
        total = np.array([[m.groups, m.full, m.partial] for m in met], dtype=float).sum(axis=0)
        heads = shape.H if ids is not None else shape.H * shape.B
        found[kernel] = heads * total @ price[kernel]
    return found


def our_seconds(
    chip: Chip, shape: Shape, dtype: mx.Dtype, ids: np.ndarray | None
) -> dict[str, tuple[float, str]]:
    """Predicted seconds of each kernel, and the roof that it hits."""
    found = {}
    size = shape.B * shape.H * shape.L * shape.D * dtype.size
    arrays = {"fwd": 4, "bwd_dq": 6, "bwd_dkv": 6}  # read or written once each, if caches do
    for kernel, counts in counts_of(shape, dtype, chip.generation, ids).items():
        read, written, threadgroup, products, exponentials = counts
        # Rows of another head's keys do not help: what passes by comes from memory once a head.
        roofs = {
            "matrix": products * FLOPS_OF_A_PRODUCT / chip.matrix_flops,
            "exp2": exponentials / chip.per_second(EXP2_PER_CYCLE),
            "threadgroup": threadgroup / chip.per_second(THREADGROUP_BYTES_PER_CYCLE),
            "L2": (read + written) / chip.per_second(L2_BYTES_PER_CYCLE),
            "memory": min(arrays[kernel] * size, read + written) / (chip.gb_per_s * 1e9),
        }
        roof = max(roofs, key=roofs.__getitem__)
        found[kernel] = roofs[roof] + SECONDS_PER_LAUNCH, roof
    if ids is not None:
        found["map"] = SECONDS_PER_LAUNCH, "launch"
    return found


@dataclass(frozen=True)
class Pass:
    """A launch of MLX's unfused path: L x L arrays read and written, the mask read, products."""

    name: str
    arrays: int
    mask: bool = False
    products: int = 0


# mx.fast.scaled_dot_product_attention where a gradient is traced (mlx/fast.cpp, its fallback; the
# gradients are those of mlx/primitives.cpp), elementwise ops joined as mx.compile joins them.
MLX_FORWARD = (
    Pass("scores = q k^T", 1, products=1),
    Pass("where(mask, scores, lowest)", 2, mask=True),
    Pass("softmax", 2),
    Pass("o = p v", 1, products=1),
)
MLX_BACKWARD = (
    Pass("dp = do v^T", 1, products=1),
    Pass("dv = p^T do", 1, products=1),
    Pass("p * dp", 3),
    Pass("sum of rows", 1),
    Pass("ds = mask * (p dp - p sum)", 3, mask=True),
    Pass("dq = ds k", 1, products=1),
    Pass("dk = ds^T q", 1, products=1),
)


def mlx_seconds(
    chip: Chip, shape: Shape, dtype: mx.Dtype, masked: bool, passes: tuple[Pass, ...]
) -> float:
    """Predicted seconds of MLX's path: every pass over all of L x L, padding included."""
    pairs = shape.B * shape.H * shape.L**2
    bandwidth = chip.gb_per_s * 1e9
    if 2 * pairs * dtype.size <= chip.slc_mb * 1e6:  # what one pass writes the next finds there
        bandwidth *= SLC_TIMES_MEMORY
    seconds = 0.0
    for step in passes:
        if step.name.startswith("where") and not masked:
            continue
        moved = pairs * (step.arrays * dtype.size + (1 if step.mask and masked else 0))
        multiplied = 2 * shape.D * pairs * step.products / chip.matrix_flops
        seconds += max(moved / bandwidth, multiplied) + SECONDS_PER_LAUNCH
    return seconds
