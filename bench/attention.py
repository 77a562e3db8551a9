"""Time masked attention, forward and with gradients, against stock MLX (and torch) in one run."""

from __future__ import annotations

import json
import platform
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click
import mlx.core as mx
import numpy as np

from mlx_esm_kernels import _ext, ops, tile_search
from mlx_esm_kernels.data import load_proteins
from mlx_esm_kernels.sample import make_sample

DTYPES = {"float32": mx.float32, "float16": mx.float16, "bfloat16": mx.bfloat16}
Run = Callable[[], Any]


def parse_shapes(text: str) -> list[tuple[int, ...]]:
    """`1x4x128x16,2x8x77x64` -> (B, H, L, D) each."""
    try:
        shapes = [tuple(int(n) for n in shape.split("x")) for shape in text.split(",")]
    except ValueError:
        shapes = []
    if not shapes or any(len(shape) != 4 or min(shape) < 1 for shape in shapes):
        raise click.BadParameter(f"--shapes expects BxHxLxD, with commas between; got {text!r}.")
    return shapes


def padded_ids(lengths: np.ndarray, batch: int, length: int) -> mx.array:
    """(B, L) ids of proteins of real lengths, one a row, each cut to L."""
    drawn = np.random.default_rng(0).choice(lengths, batch)
    return mx.array((np.arange(length) < drawn[:, None]).astype(np.int32))


def mlx_runs(shape: tuple[int, ...], dtype: mx.Dtype, ids: mx.array | None, kernels: str) -> Any:
    """Forward, and forward with gradients, as functions that wait for the result."""
    q, k, v, do = (mx.random.normal(shape, dtype, key=mx.random.key(i)) for i in range(4))
    mx.eval(q, k, v, do)

    def forward(q: mx.array, k: mx.array, v: mx.array) -> mx.array:
        return ops.masked_attention(q, k, v, segment_ids=ids, kernels=kernels)

    return {
        "forward": lambda: mx.eval(forward(q, k, v)),
        "forward+backward": lambda: mx.eval(mx.vjp(forward, [q, k, v], [do])),
    }


def torch_runs(shape: tuple[int, ...], dtype: mx.Dtype, ids: mx.array | None) -> Any:
    """The same in torch on the CPU, with padded keys masked."""
    import torch
    from torch.nn.functional import scaled_dot_product_attention

    kind = getattr(torch, str(dtype).rsplit(".", 1)[-1])
    q, k, v = (torch.randn(shape, dtype=kind, requires_grad=True) for _ in range(3))
    do = torch.randn(shape, dtype=kind)
    mask = None if ids is None else torch.tensor(np.array(ids) != 0)[:, None, None]

    def forward() -> Any:
        return scaled_dot_product_attention(q, k, v, attn_mask=mask)

    def without_gradient() -> Any:
        with torch.no_grad():
            return forward()

    return {
        "forward": without_gradient,
        "forward+backward": lambda: torch.autograd.grad(forward(), (q, k, v), do),
    }


def medians(runs: dict[str, Run], repeats: int) -> dict[str, tuple[float, int]]:
    """Median seconds and peak bytes of each, run in turn after a warm-up of the same function."""
    seconds: dict[str, list[float]] = {name: [] for name in runs}
    peak = dict.fromkeys(runs, 0)
    for turn in range(repeats + 1):
        for name, run in runs.items():
            mx.reset_peak_memory()
            start = time.perf_counter()
            run()
            if turn:
                seconds[name].append(time.perf_counter() - start)
                peak[name] = max(peak[name], mx.get_peak_memory())
    return {name: (statistics.median(seconds[name]), peak[name]) for name in runs}


def measure(
    shape: tuple[int, ...], dtype: mx.Dtype, ids: mx.array | None, against: list[str], repeats: int
) -> list[dict[str, Any]]:
    """A row for each way and direction; useful work is that of pairs in one segment."""
    batch, heads, length, dim = shape
    useful = batch * length**2 if ids is None else int((ids != 0).sum(axis=1).square().sum())
    ways = {"ours": mlx_runs(shape, dtype, ids, "ours")}
    if "mlx" in against:
        ways["mlx"] = mlx_runs(shape, dtype, ids, "mlx")
    if "torch" in against:
        ways["torch"] = torch_runs(shape, dtype, ids)
    rows = []
    for direction, products in (("forward", 2), ("forward+backward", 7)):
        found = medians({way: runs[direction] for way, runs in ways.items()}, repeats)
        for way, (seconds, peak) in found.items():
            row = {"shape": shape, "lengths": "dense" if ids is None else "real", "way": way}
            row |= {"direction": direction, "seconds": seconds}
            row["gflops"] = 2e-9 * products * heads * dim * useful / seconds
            row["peak_bytes"] = None if way == "torch" else peak
            rows.append(row)
    return rows


def tune(shape: tuple[int, ...], dtype: mx.Dtype, repeats: int) -> dict[str, tuple[int, int]]:
    """The fastest candidate of each kernel on this shape, kept for later."""

    def seconds(kernel: str) -> float:
        direction = "forward" if kernel == "fwd" else "forward+backward"
        run = mlx_runs(shape, dtype, None, "ours")[direction]
        return medians({"ours": run}, repeats)["ours"][0]

    return tile_search.search(shape[3], dtype, seconds)


def plot(rows: list[dict[str, Any]], path: Path) -> None:
    """Useful GFLOP/s of every row as bars."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(9, 1 + 0.3 * len(rows)), layout="constrained")
    axes = figure.add_subplot()
    names = [f"{r['way']} {r['direction']} {r['shape']} {r['lengths']}" for r in rows]
    axes.barh(names, [r["gflops"] for r in rows])
    axes.set_xlabel("GFLOP/s of useful work")
    figure.savefig(path)


@click.command()
@click.option("--device", type=click.Choice(["cpu", "gpu"]), default="cpu")
@click.option("--dtype", type=click.Choice(list(DTYPES)), default="float32")
@click.option("--shapes", default="4x20x256x64,8x20x256x16", help="BxHxLxD, with commas between.")
@click.option("--against", default="mlx", help="mlx, torch, or both with a comma.")
@click.option("--fasta", type=click.Path(exists=True, dir_okay=False), help="Where lengths are.")
@click.option("--repeats", type=click.IntRange(min=1), default=5)
@click.option("--json", "json_file", type=click.Path(path_type=Path))
@click.option("--plot", "plot_file", type=click.Path(path_type=Path))
@click.option("--tune", "tuning", is_flag=True, help="First find and keep the fastest tiles.")
def main(
    device: str,
    dtype: str,
    shapes: str,
    against: str,
    fasta: str | None,
    repeats: int,
    json_file: Path | None,
    plot_file: Path | None,
    tuning: bool,
) -> None:
    """Time masked attention here; every figure is of this machine."""
    ways = against.split(",")
    if not set(ways) <= {"mlx", "torch"}:
        raise click.BadParameter(f"--against expects mlx, torch or mlx,torch; got {against}.")
    if device == "gpu" and "torch" in ways:
        raise click.BadParameter("--against torch is for --device cpu; take it away.")
    if device == "gpu" and not mx.is_available(mx.gpu):
        raise click.ClickException("This MLX has no GPU here; use --device cpu.")
    if tuning and (device != "gpu" or not _ext.runs_on_metal(mx.gpu)):
        raise click.ClickException("--tune needs a Metal GPU and --device gpu.")
    mx.set_default_device(getattr(mx, device))
    proteins = load_proteins(fasta) if fasta else make_sample().proteins
    about = {"device": device, "machine": platform.platform(), "mlx": mx.__version__}
    click.echo(f"{about}, {dtype}, medians of {repeats}")
    rows = []
    for shape in parse_shapes(shapes):
        if tuning:
            click.echo(f"{shape}: tiles kept {tune(shape, DTYPES[dtype], repeats)}")
        for ids in (None, padded_ids(proteins.lengths + 2, shape[0], shape[2])):
            rows += measure(shape, DTYPES[dtype], ids, ways, repeats)
    for row in rows:
        peak = "" if row["peak_bytes"] is None else f" peak {row['peak_bytes'] / 1e6:8.1f} MB"
        click.echo(
            f"{row['shape']!s:20} {row['lengths']:5} {row['direction']:16} {row['way']:5} "
            f"{row['seconds'] * 1e3:9.2f} ms {row['gflops']:8.2f} GFLOP/s{peak}"
        )
    if json_file:
        json_file.write_text(json.dumps({**about, "dtype": dtype, "rows": rows}, indent=1))
    if plot_file:
        plot(rows, plot_file)


if __name__ == "__main__":
    main()
