"""What our Metal attention should cost on each Apple chip, on paper: every figure is predicted.

python bench/metal_model.py [--shapes 16x8x512x64] [--fasta FILE] [--chips M1,M3] [--json FILE]
Needs pip install -e ".[emulator]" and Linux x86-64: the kernels' work is counted in the emulator.
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
from metal import chips, roofline
from metal.emulator import require_emulator
from metal.roofline import MLX_BACKWARD, MLX_FORWARD, Shape

from mlx_esm_kernels import _ext
from mlx_esm_kernels.data.proteins import load_proteins

# Lengths are lognormal with the median and the spread of Swiss-Prot's archaeal proteins.
MEDIAN_LENGTH, SPREAD = 271, 0.665
# Head dims 64 (ESM-1b, ESM-1v) and 16 (small ESM-1 models), batches as training makes them.
DEFAULT_SHAPES = "16x20x512x64,16x20x256x16"
TARGET = 1.3  # times MLX's unfused path, forward and backward, padded, before M5
SHARE_REACHED = 0.6  # of a roof: the least that fused attention reaches on these chips elsewhere
MOST_REGISTERS = 128
GENERATIONS = sorted({chip.generation for chip in chips.CHIPS})

ASSUMPTIONS = (
    "Nothing here was measured on a GPU: every figure is predicted.",
    "A kernel takes as long as the first roof it hits, and "
    f"{roofline.SECONDS_PER_LAUNCH * 1e6:.0f} us a launch. Roofs are best cases: real kernels "
    "reach 60 to 90 % of them, ours and MLX's alike.",
    f"Matrix operations run on {chips.MATRIX_LANES} of a core's {chips.LANES} lanes, in float32, "
    "for ours and for MLX. On M5 MLX has faster matrix hardware in 16 bits: dispatch leaves long "
    "dense calls to it there.",
    f"A core does {chips.EXP2_PER_CYCLE} exp2 and {chips.THREADGROUP_BYTES_PER_CYCLE} bytes of "
    f"threadgroup memory a cycle; L2 gives it {chips.L2_BYTES_PER_CYCLE} bytes a cycle (384 GB/s "
    "on an M1). Later chips are taken to be alike.",
    "Ours: products, bytes and threadgroup traffic are the emulator's counts of the kernels' own "
    "source, priced per threadgroup, full and partial block pair, times what the lengths give. "
    "Every byte that a kernel asks for passes L2; from memory each array comes once a kernel.",
    f"MLX: {len(MLX_FORWARD)} launches forward and {len(MLX_BACKWARD)} backward over all of L x L, "
    "elementwise ops joined as mx.compile does. What fits half of the last cache moves at "
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
    """A row for each chip: predicted seconds of ours and of MLX's, forward and with gradients."""
    rows = []
    for chip in chips.CHIPS:
        ours = roofline.our_seconds(chip, shape, dtype, ids)
        masked = ids is not None
        forward = ours["fwd"][0] + (ours["map"][0] if masked else 0.0)
        both = sum(seconds for seconds, _ in ours.values())
        mlx = [
            roofline.mlx_seconds(chip, shape, dtype, masked, passes)
            for passes in (MLX_FORWARD, MLX_BACKWARD)
        ]
        rows.append(
            {
                "chip": chip.name + ("*" if chip.derived else ""),
                "generation": chip.generation,
                "shape": str(shape),
                "lengths": "padded" if masked else "dense",
                "ours_forward": forward,
                "mlx_forward": mlx[0],
                "ours": both,
                "mlx": sum(mlx),
                "ratio_forward": mlx[0] / forward,
                "ratio": sum(mlx) / both,
                "roofs": {kernel: roof for kernel, (_, roof) in ours.items()},
            }
        )
    return rows


def show(rows: Sequence[dict[str, Any]]) -> None:
    first = rows[0]
    click.echo(
        f"\n{first['shape']} (B x H x L x D), {first['lengths']}: predicted ms, forward and "
        "forward+backward, and MLX over ours"
    )
    click.echo("chip         ours fwd   MLX fwd ratio |  ours f+b   MLX f+b ratio  roofs hit")
    for r in rows:
        roofs = "/".join(r["roofs"][kernel] for kernel in roofline.KERNELS)
        click.echo(
            f"{r['chip']:10} {r['ours_forward'] * 1e3:10.2f}{r['mlx_forward'] * 1e3:10.2f} "
            f"{r['ratio_forward']:5.2f} |{r['ours'] * 1e3:10.2f}{r['mlx'] * 1e3:10.2f} "
            f"{r['ratio']:5.2f}  {roofs} predicted"
        )


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
        rows, _ = roofline.tiles_of(kernel, dim, dtype, generation)
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
            _ext.attention_registers(kernel, dim, roofline.tiles_of(kernel, dim, dtype, generation))
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
    before_m5 = [r["ratio"] for r in padded if r["generation"] < 17]
    lowest = min(before_m5, default=TARGET)
    for text, found, limit, low in (
        ("registers a lane, any D up to 128", most, MOST_REGISTERS, False),
        ("device bytes read, over the least for the tiling", worst[0], 1.15, False),
        ("matrix products, over those of the block pairs", worst[1], 1.05, False),
        ("lowest ratio to MLX, padded, before M5", lowest, TARGET, True),
        ("the same, if only ours falls short of its roofs", lowest * SHARE_REACHED, TARGET, True),
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
def main(
    shapes: str, dtype: str, names: str | None, fasta: str | None, json_file: Path | None
) -> None:
    """Predict what our Metal attention costs beside MLX's unfused path; nothing is measured."""
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
            show(found)
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
