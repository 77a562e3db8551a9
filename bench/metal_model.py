"""What our Metal attention should cost on each Apple chip, on paper: every figure is predicted.

python bench/metal_model.py [--shapes 16x8x512x64] [--fasta FILE] [--chips M1,M3] [--json FILE]
Needs pip install -e ".[emulator]" and Linux x86-64: the kernels' work is counted in the emulator.
With --measured FILE, what `mlx-esm doctor --json FILE` timed on a Mac stands beside it.
"""

from __future__ import annotations

import json
import textwrap
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import click
import mlx.core as mx
import numpy as np
from harness.measuring import DTYPES
from metal import chips, mlx_side, roofline
from metal.chips import LOW_SHARE, MLX_SHARE, SHARE
from metal.emulator import require_emulator
from metal.measured import compare, read_report
from metal.roofline import Shape

from mlx_esm_kernels import _ext
from mlx_esm_kernels.data.proteins import load_proteins

# Lengths are lognormal with the median and the spread of Swiss-Prot's archaeal proteins.
MEDIAN_LENGTH, SPREAD = 271, 0.665
# Head dims 64 (ESM-1b, ESM-1v) and 16 (small ESM-1 models), batches as training makes them.
DEFAULT_SHAPES = "16x20x512x64,16x20x256x16"
TARGET = 1.3  # times MLX's unfused path, forward and backward, padded, before M5
MOST_REGISTERS = 128
GENERATIONS = sorted({chip.generation for chip in chips.CHIPS})

ASSUMPTIONS = (
    "Nothing here was measured on a GPU: every figure is predicted.",
    f"Ours reach {SHARE} of their roofs, and {LOW_SHARE} in the columns marked low; MLX's launches "
    f"reach {MLX_SHARE} of theirs, which others measured of its forward alone. To this come "
    f"{chips.SECONDS_PER_LAUNCH * 1e6:.0f} us a launch.",
    "A kernel of ours takes as long as the first roof it hits, where the time of the products and "
    "that of loading their fragments from threadgroup memory are added: they overlap only as far "
    "as a core's few simdgroups cover for each other.",
    f"Matrix operations run on {chips.MATRIX_LANES} of a core's {chips.LANES} lanes, in float32, "
    "for ours and for MLX. On M5 MLX has faster matrix hardware, in 16 bits and, as TF32, in "
    "float32: what is said of M5 flatters ours.",
    f"A core does {chips.EXP2_PER_CYCLE} exp2 and {chips.THREADGROUP_BYTES_PER_CYCLE} bytes of "
    f"threadgroup memory a cycle; L2 gives it {chips.L2_BYTES_PER_CYCLE} bytes a cycle (384 GB/s "
    "on an M1). Later chips are taken to be alike.",
    "Ours: products, bytes and threadgroup traffic are the emulator's counts of the kernels' own "
    "source, priced per threadgroup, full and partial block pair, times what the lengths give. "
    "Every byte that a kernel asks for passes L2; from memory each array comes once a kernel.",
    "MLX 0.32.4, head dims 64, 72, 80, 96 and 128: forward is fused, with a mask too where no "
    "gradient is asked for. Dense, backward is five products and one other kernel over tiles of "
    f"scores of {mlx_side.BACKWARD_TILE} x {mlx_side.BACKWARD_TILE} for all heads, written and "
    "read by each of them.",
    f"Else MLX is unfused: {len(mlx_side.UNFUSED_FORWARD)} launches forward and "
    f"{len(mlx_side.UNFUSED_BACKWARD)} backward over all of L x L, elementwise ops joined as "
    "mx.compile does. What fits half of the last cache moves at "
    f"{chips.SLC_TIMES_MEMORY:.0f} times the memory's rate; the sizes of that cache are partly "
    "assumed. Operands that a product reads twice count once.",
    "Chips marked * have a rate or bandwidth derived from their siblings'.",
)


def padded_ids(lengths: np.ndarray, batch: int, length: int) -> np.ndarray:
    """(B, L): one protein a row, cut to L; lengths are drawn, then padded to the longest."""
    drawn = np.minimum(np.random.default_rng(0).choice(lengths, batch), length)
    drawn[0] = length  # the row that the batch is padded to
    return (np.arange(length) < drawn[:, None]).astype(int)


def predict(shape: Shape, dtype: mx.Dtype, ids: np.ndarray | None) -> list[dict[str, Any]]:
    """A row for each chip: predicted seconds of ours and of MLX's, forward alone and with
    gradients; `roofs_overlapped` and `roofs_added` are ours at all of their roofs."""
    rows = []
    masked = ids is not None
    for chip in chips.CHIPS:
        costs = roofline.our_costs(chip, shape, dtype, ids)
        ours, low = (roofline.our_seconds(costs, masked, share) for share in (SHARE, LOW_SHARE))
        mlx = mlx_side.mlx_seconds(chip, shape, dtype, masked, MLX_SHARE)
        row: dict[str, Any] = {
            "chip": chip.name + ("*" if chip.derived else ""),
            "generation": chip.generation,
            "shape": str(shape),
            "lengths": "padded" if masked else "dense",
            "roofs": {kernel: cost.first for kernel, cost in costs.items()},
            "mlx_unfused": mlx_side.unfused(chip, shape, dtype, masked).at(MLX_SHARE),
        }
        for at, end in enumerate(("_forward", "")):
            row |= {f"ours{end}": ours[at], f"ours_low{end}": low[at], f"mlx{end}": mlx[at]}
            row |= {f"ratio{end}": mlx[at] / ours[at], f"ratio_low{end}": mlx[at] / low[at]}
            for name, overlapping in (("overlapped", True), ("added", False)):
                full = roofline.our_seconds(costs, masked, overlapping=overlapping)
                row[f"roofs_{name}{end}"] = full[at]
        rows.append(row)
    return rows


def show(rows: Sequence[dict[str, Any]], both_roofs: bool) -> None:
    first = rows[0]
    click.echo(
        f"\n{first['shape']} (B x H x L x D), {first['lengths']}: predicted ms, and MLX over ours"
    )
    click.echo(
        f"{'':10} {'forward alone':^39} | {'forward+backward':^39}"
        + (f" | {'ours at all of the roofs':^31}" if both_roofs else "")
    )
    columns = f"{'ours':>8} {'ours low':>9} {'MLX':>8} {'ratio':>5} {'low':>5}"
    roofs = f" | {'forward':^15} {'f+b':^15}" if both_roofs else ""
    click.echo(f"{'chip':10} {columns} | {columns}{roofs}  roofs hit")
    for r in rows:
        line = f"{r['chip']:10} " + " | ".join(
            f"{r['ours' + end] * 1e3:8.2f} {r['ours_low' + end] * 1e3:9.2f} "
            f"{r['mlx' + end] * 1e3:8.2f} {r['ratio' + end]:5.2f} {r['ratio_low' + end]:5.2f}"
            for end in ("_forward", "")
        )
        if both_roofs:
            pairs = (
                f"{r['roofs_overlapped' + end] * 1e3:6.2f} to {r['roofs_added' + end] * 1e3:<6.2f}"
                for end in ("_forward", "")
            )
            line += f" | {' '.join(pairs)}"
        hit = "/".join(r["roofs"][kernel] for kernel in roofline.KERNELS)
        click.echo(f"{line}  {hit} predicted")


def traffic(dim: int, dtype: mx.Dtype, generation: int) -> dict[str, tuple[float, float]]:
    """For each kernel: bytes read over the least for its tiling, products over the useful ones.

    The least: a threadgroup's own rows once, two arrays of passing rows once a threadgroup, and a
    float32 of lse and of delta where a kernel needs them.
    """
    length = 128
    found = {}
    counts = roofline.run_counts(dim, dtype, generation, None, length)
    held = {"fwd": 1, "bwd_dq": 3, "bwd_dkv": 2}
    for kernel in roofline.KERNELS:
        rows = roofline.tiles_of(kernel, dim, dtype, generation)[0]
        groups, array = length / rows, length * dim * dtype.size
        numbers = {"fwd": 0, "bwd_dq": 1, "bwd_dkv": 2 * groups}[kernel] * length * 4
        least = (held[kernel] + 2 * groups) * array + numbers
        useful = roofline.PRODUCTS[kernel] * (length // 8) ** 2 * dim / 8
        found[kernel] = counts[kernel][0] / least, counts[kernel][3] / useful
    return found


def registers(dim: int, dtype: mx.Dtype) -> list[int]:
    """For each kernel the registers a lane holds, with the tiles of the chip that needs most."""
    return [
        max(
            _ext.attention_registers(
                kernel, dim, dtype, roofline.tiles_of(kernel, dim, dtype, generation)
            )
            for generation in GENERATIONS
        )
        for kernel in roofline.KERNELS
    ]


def show_targets(dims: Sequence[int], dtype: mx.Dtype, padded: list[dict[str, Any]]) -> bool:
    """Print what the targets ask for and what is found; True if all are met."""
    met = True
    click.echo("\nregisters a lane, estimated from the arrays a kernel holds:")
    most = 0
    for dim in range(8, 136, 8):
        counts = registers(dim, dtype)
        most = max(most, *counts)
        if dim in (16, 32, 64, 80, 96, 128):
            click.echo(
                f"  D = {dim:3}: "
                + ", ".join(map("{} {}".format, roofline.KERNELS, counts))
                + " predicted"
            )
    worst = [0.0, 0.0]
    for dim in dims:
        for generation in GENERATIONS:
            for ratios in traffic(dim, dtype, generation).values():
                worst = [max(pair) for pair in zip(worst, ratios, strict=True)]

    def lowest(ratio: str) -> float:
        return min((r[ratio] for r in padded if r["generation"] < 17), default=float("inf"))

    padded_text = "lowest ratio to MLX, padded, before M5"
    for text, found, limit, low in (
        ("registers a lane, any D up to 128", most, MOST_REGISTERS, False),
        ("device bytes read, over the least for the tiling", worst[0], 1.15, False),
        ("matrix products, over those of the block pairs", worst[1], 1.05, False),
        (f"{padded_text}, with gradients", lowest("ratio"), TARGET, True),
        ("the same, ours at the low share", lowest("ratio_low"), TARGET, True),
        (f"{padded_text}, forward alone", lowest("ratio_forward"), 1, True),
        ("the same, ours at the low share", lowest("ratio_low_forward"), 1, True),
    ):
        good = found >= limit if low else found <= limit
        met = met and bool(good)
        verdict = "met" if good else "FELL SHORT"
        relation = "at least" if low else "at most"
        click.echo(f"{text}: {found:.4g} predicted, target {relation} {limit}: {verdict}")
    return met


@click.command()
@click.option("--shapes", default=DEFAULT_SHAPES, help="BxHxLxD, with commas between.")
@click.option("--dtype", type=click.Choice(list(DTYPES)), default="float32")
@click.option("--chips", "names", default=None, help="Some of the chips, with commas: M1,M3 Max.")
@click.option("--fasta", type=click.Path(exists=True, dir_okay=False), help="Where lengths are.")
@click.option("--json", "json_file", type=click.Path(path_type=Path))
@click.option("--both-roofs", is_flag=True, help="Show ours with products and loads at once, too.")
@click.option(
    "--measured",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help="What `mlx-esm doctor --json FILE` wrote on a Mac: set it beside the predictions.",
)
def main(
    shapes: str,
    dtype: str,
    names: str | None,
    fasta: str | None,
    json_file: Path | None,
    both_roofs: bool,
    measured: Path | None,
) -> None:
    """Predict what our Metal attention costs beside MLX's; nothing is measured here."""
    if measured:
        compare(read_report(measured))
        return
    require_emulator()
    wanted = [name.strip() for name in names.split(",")] if names else None
    unknown = set(wanted or ()) - {chip.name for chip in chips.CHIPS}
    if unknown:
        known = ", ".join(chip.name for chip in chips.CHIPS)
        raise click.BadParameter(f"--chips knows {known}; got {', '.join(sorted(unknown))}.")
    if fasta:
        lengths, where = load_proteins(fasta).lengths, fasta
    else:
        normal = np.random.default_rng(0).standard_normal(10_000)
        lengths = np.round(MEDIAN_LENGTH * np.exp(SPREAD * normal)).astype(int)
        where = "lognormal, as Swiss-Prot's archaeal proteins are"
    drawn = f"Lengths: {where}; median {np.median(lengths):.0f} residues. A padded batch is drawn "
    drawn += "from them, cut to L and padded to L."
    for assumption in (*ASSUMPTIONS, drawn):
        click.echo(textwrap.fill(f"- {assumption}", 98, subsequent_indent="  "))
    rows, dims = [], []
    for shape in parse_shapes(shapes):
        dims.append(shape.D)
        ids = padded_ids(lengths + 2, shape.B, shape.L)
        click.echo(f"\n{shape}: a padded batch is {ids.mean():.0%} full (predicted figures follow)")
        for case in (None, ids):
            found = predict(shape, DTYPES[dtype], case)
            found = [r for r in found if not wanted or r["chip"].rstrip("*") in wanted]
            show(found, both_roofs)
            rows += found
    met = show_targets(dims, DTYPES[dtype], [r for r in rows if r["lengths"] == "padded"])
    if json_file:
        content = {"predicted": True, "dtype": dtype, "targets_met": met, "rows": rows}
        json_file.write_text(json.dumps(content, indent=1))


def parse_shapes(text: str) -> list[Shape]:
    """`16x8x512x64,8x20x256x16` -> (B, H, L, D) each."""
    try:
        shapes = [Shape(*(int(n) for n in part.split("x"))) for part in text.split(",")]
    except (ValueError, TypeError):
        shapes = []
    if not shapes or any(min(s.B, s.H, s.L, s.D) < 1 for s in shapes):
        raise click.BadParameter(f"--shapes expects BxHxLxD, with commas between; got {text!r}.")
    for shape in shapes:
        if not _ext.attention_served(shape.D, mx.float32):
            raise click.BadParameter(f"no Metal kernel of ours serves D = {shape.D}.")
    return shapes


if __name__ == "__main__":
    main()
