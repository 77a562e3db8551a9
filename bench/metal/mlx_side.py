"""What MLX's own attention costs on a chip by a roofline, as version 0.32.4 launches it.

Fused, for some head dims: forward one kernel; backward matrix products over tiles of scores, of
1024 x 1024 for all heads at once, which pass through memory. Unfused, where a mask and a gradient
meet or the head dim is another: every step over all of L x L.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import mlx.core as mx

from mlx_esm_kernels.ops.dispatch import MLX_HEAD_DIMS

from .chips import (
    EXP2_PER_CYCLE,
    L2_BYTES_PER_CYCLE,
    SECONDS_PER_LAUNCH,
    SLC_TIMES_MEMORY,
    Chip,
)
from .roofline import Shape

BACKWARD_TILE = 1024  # rows and columns
FORWARD_ROWS = 32  # queries of a threadgroup, for which all keys and values pass by


@dataclass(frozen=True)
class Pass:
    """A launch over scores: L x L arrays, or tiles, that it reads and writes; mask; products."""

    name: str
    arrays: int
    mask: bool = False
    products: int = 0


# mx.fast.scaled_dot_product_attention where a gradient is traced (mlx/fast.cpp, its fallback; the
# gradients are those of mlx/primitives.cpp), elementwise ops joined as mx.compile joins them.
UNFUSED_FORWARD = (
    Pass("scores = q k^T", 1, products=1),
    Pass("where(mask, scores, lowest)", 2, mask=True),
    Pass("softmax", 2),
    Pass("o = p v", 1, products=1),
)
UNFUSED_BACKWARD = (
    Pass("dp = do v^T", 1, products=1),
    Pass("dv = p^T do", 1, products=1),
    Pass("p * dp", 3),
    Pass("sum of rows", 1),
    Pass("ds = mask * (p dp - p sum)", 3, mask=True),
    Pass("dq = ds k", 1, products=1),
    Pass("dk = ds^T q", 1, products=1),
)
# By the buffers that its kernels sdpa_vjp_* name in the wheel's metallib; with the two products of
# forward these are seven.
FUSED_BACKWARD = (
    Pass("s = q k^T", 1, products=1),
    Pass("dp = do v^T", 1, products=1),
    Pass("sdpa_vjp_ds: s and dp to ds and p", 4),
    Pass("dq = ds k", 1, products=1),
    Pass("dk = ds^T q", 1, products=1),
    Pass("dv = p^T do", 1, products=1),
)


def is_fused(head_dim: int, masked: bool, gradient: bool) -> bool:
    """Whether MLX has a fused kernel: without a gradient a mask does not matter."""
    return head_dim in MLX_HEAD_DIMS and not (masked and gradient)


@dataclass(frozen=True)
class Work:
    """Seconds at all of the roofs, and launches, which no share of a roof makes shorter."""

    seconds: float
    launches: int

    def __add__(self, other: Work) -> Work:
        return Work(self.seconds + other.seconds, self.launches + other.launches)

    def at(self, share: float) -> float:
        return self.seconds / share + self.launches * SECONDS_PER_LAUNCH


def mlx_seconds(
    chip: Chip, shape: Shape, dtype: mx.Dtype, masked: bool, share: float = 1.0
) -> tuple[float, float]:
    """Forward alone, and forward and backward under a gradient, padding included.

    Args:
        chip, shape, dtype: of the call.
        masked: segments or padding, as a boolean array.
        share: of the roofs that is reached, up to 1.
    """
    if is_fused(shape.D, masked, gradient=False):
        forward = fused_forward(chip, shape, dtype, masked)
    else:
        forward = score_passes(chip, shape, dtype, masked, UNFUSED_FORWARD)
    if is_fused(shape.D, masked, gradient=True):
        both = forward + fused_backward(chip, shape, dtype)
    else:
        both = unfused(chip, shape, dtype, masked)
    return forward.at(share), both.at(share)


def unfused(chip: Chip, shape: Shape, dtype: mx.Dtype, masked: bool) -> Work:
    """Forward and backward with L x L arrays; arguments as of `mlx_seconds`."""
    return score_passes(chip, shape, dtype, masked, UNFUSED_FORWARD + UNFUSED_BACKWARD)


def fused_forward(chip: Chip, shape: Shape, dtype: mx.Dtype, masked: bool) -> Work:
    """One launch, as long as the first roof that it hits."""
    pairs = shape.B * shape.H * shape.L**2
    rows = shape.B * shape.H * shape.L * shape.D * dtype.size  # bytes of an array
    mask = pairs if masked else 0  # each head reads it anew
    passing = 2 * rows * -(-shape.L // FORWARD_ROWS)
    roofs = (
        2 * 2 * shape.D * pairs / chip.matrix_flops,
        pairs / chip.per_second(EXP2_PER_CYCLE),
        (2 * rows + passing + mask) / chip.per_second(L2_BYTES_PER_CYCLE),
        (4 * rows + mask / shape.H) / (chip.gb_per_s * 1e9),
    )
    return Work(max(roofs), 1)


def fused_backward(chip: Chip, shape: Shape, dtype: mx.Dtype) -> Work:
    """Every pass over every tile of scores, and sums of what the tiles give."""
    edge = min(shape.L, BACKWARD_TILE)
    tile = Shape(shape.B, shape.H, edge, shape.D)
    scores = score_passes(chip, tile, dtype, False, FUSED_BACKWARD)
    bandwidth = chip.gb_per_s * 1e9
    elements = shape.B * shape.H * edge * shape.D
    # sdpa_vjp_reduce: dq, dk and dv of a tile are added to float32 sums, and written once more.
    sums = 3 * elements * (2 * dtype.size + 8) / bandwidth
    # sdpa_vjp_odo: the sums of do * o over rows.
    odo = 2 * shape.B * shape.H * shape.L * shape.D * dtype.size / bandwidth
    tiles = (shape.L / edge) ** 2  # those at the edges are smaller
    launches = 1 + math.ceil(shape.L / edge) ** 2 * (scores.launches + 3)
    return Work(odo + tiles * (scores.seconds + sums), launches)


def score_passes(
    chip: Chip, shape: Shape, dtype: mx.Dtype, masked: bool, passes: tuple[Pass, ...]
) -> Work:
    """These launches, each over all of L x L."""
    pairs = shape.B * shape.H * shape.L**2
    bandwidth = chip.gb_per_s * 1e9
    if 2 * pairs * dtype.size <= chip.slc_mb * 1e6:  # what one pass writes the next finds there
        bandwidth *= SLC_TIMES_MEMORY
    work = Work(0.0, 0)
    for step in passes:
        if step.name.startswith("where") and not masked:
            continue
        moved = pairs * (step.arrays * dtype.size + (1 if step.mask and masked else 0))
        multiplied = 2 * shape.D * pairs * step.products / chip.matrix_flops
        work += Work(max(moved / bandwidth, multiplied), 1)
    return work
