"""Time masked attention, forward and with gradients, against stock MLX (and torch) in one run."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import click
import mlx.core as mx
import numpy as np
from harness.command import Options, Row, begin, benchmark_options, capturing, finish
from harness.measuring import Run, alternate, gemm_rate, gemm_runs, padded_ids

from mlx_esm_kernels import _ext, ops
from mlx_esm_kernels.ops import tile_search, timings
from mlx_esm_kernels.ops.tiles import Tiles
from mlx_esm_kernels.ops.timings import Timing

FORWARD, BOTH = DIRECTIONS = ("forward", "forward+backward")
# Of L x L x D: two forward; in backward four, and one that computes the scores again.
PRODUCTS = {FORWARD: 2, BOTH: 7}


def runs_of(
    way: str, shape: tuple[int, ...], dtype: mx.Dtype, ids: mx.array | None
) -> dict[str, Run]:
    """Both directions as functions that wait for the result.

    Args:
        way: ours; mlx, the same maths from MLX's ops; mx.fast; torch.
        shape: (B, H, L, D).
        ids: (B, L) segment ids, 0 = padding, or None.
    """
    if way == "torch":
        return _torch_runs(shape, dtype, ids)
    q, k, v, do = (mx.random.normal(shape, dtype, key=mx.random.key(i)) for i in range(4))
    mx.eval(q, k, v, do)
    forward = mlx_forward(way, shape, ids)
    return {
        FORWARD: lambda: mx.eval(forward(q, k, v)),
        BOTH: lambda: mx.eval(mx.vjp(forward, [q, k, v], [do])),
    }


def mlx_forward(
    way: str, shape: tuple[int, ...], ids: mx.array | None
) -> Callable[[mx.array, mx.array, mx.array], mx.array]:
    """The way's attention of q, k, v, with its mask already made."""
    if way == "mx.fast":
        mask = None if ids is None else mx.array(_mask(np.array(ids)))
        mx.eval([] if mask is None else mask)
        return functools.partial(
            mx.fast.scaled_dot_product_attention, scale=shape[3] ** -0.5, mask=mask
        )
    mx.eval([] if ids is None else ids)
    return functools.partial(ops.masked_attention, segment_ids=ids, kernels=way)


def _torch_runs(shape: tuple[int, ...], dtype: mx.Dtype, ids: mx.array | None) -> dict[str, Run]:
    import torch
    from torch.nn.functional import scaled_dot_product_attention

    kind = getattr(torch, str(dtype).rsplit(".", 1)[-1])
    q, k, v = (torch.randn(shape, dtype=kind, requires_grad=True) for _ in range(3))
    plain = [x.detach() for x in (q, k, v)]
    do = torch.randn(shape, dtype=kind)
    mask = None if ids is None else torch.from_numpy(_mask(np.array(ids)))

    def forward() -> Any:
        with torch.inference_mode():
            return scaled_dot_product_attention(*plain, attn_mask=mask)

    def both() -> Any:
        o = scaled_dot_product_attention(q, k, v, attn_mask=mask)
        return torch.autograd.grad(o, (q, k, v), do)

    return {FORWARD: forward, BOTH: both}


def _mask(ids: np.ndarray) -> np.ndarray:
    """ids (B, L) -> True where a key is seen: (B, 1, 1, L), or (B, 1, L, L) of packed proteins."""
    if ids.max() <= 1:
        return (ids != 0)[:, None, None, :]
    # Padding sees padding, so that no softmax is over nothing.
    mask: np.ndarray = ids[:, None, :, None] == ids[:, None, None, :]
    return mask


def useful_pairs(shape: tuple[int, ...], ids: mx.array | None) -> int:
    """Pairs of a query and a key of one segment, over the batch; padding counts for nothing."""
    batch, _, length, _ = shape
    if ids is None:
        return batch * length**2
    return sum(int((np.bincount(row)[1:] ** 2).sum()) for row in np.array(ids))


def useful_flops(shape: tuple[int, ...], ids: mx.array | None, direction: str) -> float:
    """Floating-point operations of the products of these pairs."""
    return 2.0 * PRODUCTS[direction] * shape[1] * shape[3] * useful_pairs(shape, ids)


def measure(
    shape: tuple[int, ...],
    dtype: mx.Dtype,
    ids: mx.array | None,
    against: list[str],
    repeats: int,
    device: str = "cpu",
) -> list[Row]:
    """A row for each way and direction."""
    ways = {way: runs_of(way, shape, dtype, ids) for way in ("ours", *against)}
    gemms = gemm_runs(device)
    rows = []
    for direction in DIRECTIONS:
        runs = {way: both[direction] for way, both in ways.items()}
        found = alternate({**runs, **gemms}, repeats=repeats)
        name, rate = gemm_rate({name: found[name] for name in gemms})
        for way in ways:
            row: Row = {"shape": shape, "lengths": "dense" if ids is None else "real", "way": way}
            row["fill"] = 1.0 if ids is None else float(np.mean(np.array(ids) != 0))
            row |= {"direction": direction, "seconds": found[way].seconds, "unit": "GFLOP/s"}
            flops = useful_flops(shape, ids, direction) / found[way].seconds
            row |= {"rate": 1e-9 * flops, "share": flops / rate}
            row["yardstick"] = f"the best float32 GEMM at hand, {name}: {1e-9 * rate:.0f} billion/s"
            row["peak_bytes"] = None if way == "torch" else found[way].peak_bytes
            rows.append(row)
    return rows


def tune(shape: tuple[int, ...], dtype: mx.Dtype, repeats: int) -> dict[str, Tiles]:
    """The fastest candidate of each kernel on this shape, kept for later."""

    def seconds(kernel: str) -> float:
        run = runs_of("ours", shape, dtype, None)[FORWARD if kernel == "fwd" else BOTH]
        return alternate({"ours": run}, repeats=repeats)["ours"].seconds

    return tile_search.search(shape[3], dtype, seconds)


def timing(rows: list[Row]) -> Timing:
    """Ours beside MLX's of one shape, as dispatch wants them."""
    seconds = {(row["way"], row["direction"]): row["seconds"] for row in rows}
    return {
        "dense": rows[0]["lengths"] == "dense",
        "length": rows[0]["shape"][2],
        "forward": [seconds[way, FORWARD] for way in ("ours", "mlx")],
        "forward_backward": [seconds[way, BOTH] for way in ("ours", "mlx")],
    }


@click.command()
@benchmark_options(
    shapes="4x20x256x64,8x20x256x16",
    sizes="BxHxLxD",
    ways=("mlx", "mx.fast", "torch"),
    against="mlx",
)
@click.option(
    "--tune",
    "tuning",
    is_flag=True,
    help="First find and keep the fastest tiles; then keep our times and MLX's, which decide from "
    "then on what serves calls of these head dims.",
)
def main(options: Options, tuning: bool) -> None:
    """Time masked attention here; every figure is of this machine."""
    if tuning and (options.device != "gpu" or not _ext.runs_on_metal(mx.gpu)):
        raise click.ClickException("--tune needs a Metal GPU and --device gpu.")
    if tuning and "mlx" not in options.against:
        raise click.ClickException("--tune compares with MLX's ops; add mlx to --against.")
    proteins, about = begin(options)
    rows, dtype = [], options.mlx_dtype
    for shape in options.shapes:
        if tuning:
            click.echo(f"{shape}: tiles kept {tune(shape, dtype, options.repeats)}")
        for ids in (None, padded_ids(proteins.lengths + 2, shape[0], shape[2])):
            found = measure(shape, dtype, ids, options.against, options.repeats, options.device)
            rows += found
            if tuning:
                timings.keep(shape[3], dtype, [timing(found)])
    finish(options, about, rows)
    if options.capture_file:
        run = runs_of("ours", options.shapes[0], dtype, None)[BOTH]
        run()
        with capturing(options.capture_file):
            run()


if __name__ == "__main__":
    main()
