"""Time rotary positions against stock MLX's, beside what memory can carry."""

from __future__ import annotations

from functools import partial

import click
import mlx.core as mx
import numpy as np
from harness.command import Options, Row, begin, benchmark_options, finish
from harness.copies import rows_beside_copies
from harness.measuring import Run, packed_batch

from mlx_esm_kernels import ops
from mlx_esm_kernels.data.proteins import Proteins

FORWARD, BOTH = ("forward", "forward+backward")


def runs_of(way: str, shape: tuple[int, ...], dtype: mx.Dtype, ids: np.ndarray) -> dict[str, Run]:
    """Both directions as functions that wait for the result; shape is (B, H, L, D), heads last.

    mx.fast counts positions from the start of a row: of packed rows it gives other numbers.
    """
    batch, heads, length, dim = shape
    x, do = (
        mx.random.normal((batch, length, heads, dim), dtype, key=mx.random.key(key)).swapaxes(1, 2)
        for key in range(2)
    )
    angles = ops.rotary_angles(mx.array(ids), dim)
    mx.eval(x, do, angles)

    def forward(x: mx.array) -> mx.array:
        if way == "mx.fast":
            return mx.fast.rope(x, dim, traditional=False, base=1e4, scale=1.0, offset=0)
        return ops.rotary(x, angles, kernels=way)

    return {
        FORWARD: lambda: mx.eval(forward(x)),
        BOTH: lambda: mx.eval(mx.vjp(forward, [x], [do])),
    }


def useful_bytes(shape: tuple[int, ...], dtype: mx.Dtype, direction: str) -> int:
    """x read and its turn written, and in backward the same of the gradient."""
    return (2 if direction == FORWARD else 4) * int(np.prod(shape)) * dtype.size


def measure(shape: tuple[int, ...], proteins: Proteins, options: Options) -> list[Row]:
    """A row for each way and direction, on rows that hold as many proteins as fit."""
    ids = packed_batch(proteins, shape[0], shape[2]).segment_ids
    dtype = options.mlx_dtype
    ways = {way: runs_of(way, shape, dtype, ids) for way in ("ours", *options.against)}
    about: Row = {"shape": shape, "lengths": "real", "fill": float((ids != 0).mean())}
    return rows_beside_copies(ways, partial(useful_bytes, shape, dtype), about, options)


@click.command()
@benchmark_options(
    shapes="4x20x1024x16,4x20x1024x24,4x20x1024x64",
    sizes="BxHxLxD",
    ways=("mlx", "mx.fast"),
    against="mlx,mx.fast",
)
def main(options: Options) -> None:
    """Time rotary positions here; every figure is of this machine."""
    proteins, about = begin(options)
    finish(
        options,
        about,
        [row for shape in options.shapes for row in measure(shape, proteins, options)],
    )


if __name__ == "__main__":
    main()
