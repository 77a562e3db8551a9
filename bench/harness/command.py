"""What the benchmarks' commands share: flags and their checks, rows printed and written."""

from __future__ import annotations

import functools
import json
import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import click
import mlx.core as mx

from mlx_esm_kernels.data.proteins import Proteins

from .measuring import (
    DTYPES,
    describe_machine,
    installed,
    lengths_in_words,
    machine_in_words,
    open_proteins,
)

Row = dict[str, Any]
# What can be timed against, and the packages that it needs.
PACKAGES = {
    "mlx": (),
    "mx.fast": (),
    "torch": ("torch",),
    "fair-esm": ("torch", "esm"),
    "transformers": ("torch", "transformers"),
    "transformers-bfloat16": ("torch", "transformers"),
    "esm-cpp": (),
    "esm-cpp-int8": (),
    "transformer-encoder": ("torch",),
    "bfloat16": (),
    "int8": (),
    "ours-bfloat16": (),
    "ours-int8": (),
}


@dataclass(frozen=True)
class Options:
    """The flags that every benchmark has, checked."""

    device: str
    dtype: str
    shapes: list[tuple[int, ...]]
    against: list[str]
    fasta: str | None
    repeats: int
    json_file: Path | None
    plot_file: Path | None
    capture_file: Path | None

    @property
    def mlx_dtype(self) -> mx.Dtype:
        return DTYPES[self.dtype]


_SHARED = {field.name for field in fields(Options)}


def benchmark_options(
    *, shapes: str, sizes: str, ways: Sequence[str], against: str
) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Flags for a command, which takes an `Options` first and then what flags of its own it has.

    Args:
        shapes: the default of --shapes.
        sizes: what the numbers of a shape are, such as BxHxLxD.
        ways: what it can be timed against.
        against: the default of --against.
    """

    def decorate(command: Callable[..., None]) -> Callable[..., None]:
        @click.option("--device", type=click.Choice(["cpu", "gpu"]), default="cpu")
        @click.option("--dtype", type=click.Choice(list(DTYPES)), default="float32")
        @click.option("--shapes", default=shapes, help=f"{sizes}, with commas between.")
        @click.option(
            "--against",
            default=against,
            help=f"Of {', '.join(ways)}, with commas between; or none.",
        )
        @click.option(
            "--fasta", type=click.Path(exists=True, dir_okay=False), help="Where lengths are."
        )
        @click.option("--repeats", type=click.IntRange(min=1), default=5)
        @click.option(
            "--quick", is_flag=True, help="The first shape alone, in one turn: to see that it runs."
        )
        @click.option("--json", "json_file", type=click.Path(path_type=Path))
        @click.option("--plot", "plot_file", type=click.Path(path_type=Path))
        @click.option(
            "--capture",
            "capture_file",
            type=click.Path(path_type=Path),
            help="Write a .gputrace of one run of ours, for Xcode; needs MTL_CAPTURE_ENABLED=1.",
        )
        @functools.wraps(command)
        def with_options(quick: bool, **flags: Any) -> None:
            own = {name: flags.pop(name) for name in set(flags) - _SHARED}
            check_device(flags["device"])
            flags["shapes"] = parse_shapes(flags["shapes"], sizes)
            if quick:
                flags |= {"shapes": flags["shapes"][:1], "repeats": 1}
            flags["against"] = parse_against(
                flags["against"], ways, flags["device"], flags["dtype"]
            )
            options = Options(**flags)
            if options.capture_file:
                check_capture(options.capture_file, options.device)
            command(options, **own)

        return with_options

    return decorate


def parse_shapes(text: str, sizes: str) -> list[tuple[int, ...]]:
    """`1x4x128x16,2x8x77x64` with sizes BxHxLxD -> (B, H, L, D) each."""
    count = len(sizes.split("x"))
    try:
        shapes = [tuple(int(n) for n in shape.split("x")) for shape in text.split(",")]
    except ValueError:
        shapes = []
    if not shapes or any(len(shape) != count or min(shape) < 1 for shape in shapes):
        raise click.BadParameter(f"--shapes expects {sizes}, with commas between; got {text!r}.")
    return shapes


def parse_against(text: str, ways: Sequence[str], device: str, dtype: str) -> list[str]:
    """`mlx,torch` -> those ways, which are known, installed, and run on this device and dtype."""
    if text == "none":
        return []
    chosen = text.split(",")
    if not set(chosen) <= set(ways):
        raise click.BadParameter(f"--against expects some of {', '.join(ways)}; got {text}.")
    for way in chosen:
        if device == "gpu" and "torch" in PACKAGES[way]:
            raise click.BadParameter(f"--against {way} is for --device cpu; take it away.")
        if way == "fair-esm" and dtype != "float32":
            # Its token dropout gives float32, which a LayerNorm of half precision refuses.
            raise click.BadParameter("--against fair-esm is for --dtype float32; take it away.")
        for package in PACKAGES[way]:
            if not installed(package):
                raise click.BadParameter(
                    f"--against {way} needs {package}, which is not installed."
                )
    return chosen


def check_device(device: str) -> None:
    """Make it MLX's default, or say that it is not there."""
    if device == "gpu" and not mx.is_available(mx.gpu):
        raise click.ClickException("This MLX has no GPU here; use --device cpu.")
    mx.set_default_device(getattr(mx, device))


def check_capture(path: Path, device: str) -> None:
    """Say at once what would make Metal refuse a capture after minutes of timing."""
    if device != "gpu" or not mx.metal.is_available():
        raise click.ClickException("--capture needs a Metal GPU and --device gpu.")
    if os.environ.get("MTL_CAPTURE_ENABLED") != "1":
        raise click.ClickException(
            "Metal captures only where MTL_CAPTURE_ENABLED=1 is set before the program starts."
        )
    if path.suffix != ".gputrace":
        raise click.ClickException(f"--capture expects a path that ends in .gputrace; got {path}.")
    if path.exists():
        raise click.ClickException(f"{path} exists, and Metal replaces no capture; name another.")


@contextmanager
def capturing(path: Path) -> Iterator[None]:
    """What runs within is written into a GPU trace that Xcode opens."""
    mx.metal.start_capture(str(path))
    try:
        yield
    finally:
        mx.metal.stop_capture()
        click.echo(f"GPU trace written to {path}")


def begin(options: Options) -> tuple[Proteins, dict[str, Any]]:
    """The proteins whose lengths are used, and what the figures stand under, which is printed."""
    proteins, where = open_proteins(options.fasta)
    about = describe_machine(options.device)
    about |= {"dtype": options.dtype, "lengths": lengths_in_words(proteins, where)}
    click.echo(machine_in_words(about))
    click.echo(f"{options.dtype}, medians of {options.repeats} turns; real: {about['lengths']}")
    return proteins, about


def finish(options: Options, about: dict[str, Any], rows: list[Row]) -> None:
    """Print the rows, and write the files that were asked for.

    Each row has shape, lengths, fill (the share of tokens that are not padding), direction, way,
    seconds, rate, unit, share (of the machine's own rate, `yardstick`), and peak_bytes or None.
    """
    for row in rows:
        peak = "" if row["peak_bytes"] is None else f"  peak {row['peak_bytes'] / 1e6:8.1f} MB"
        click.echo(
            f"{row['shape']!s:20} {row['lengths']:5} {row['fill']:4.0%} full "
            f"{row['direction']:16} {row['way']:20}"
            f"{row['seconds'] * 1e3:10.2f} ms {row['rate']:9.2f} {row['unit']}"
            f" {row['share']:5.0%}{peak}"
        )
    for yardstick in dict.fromkeys(row["yardstick"] for row in rows):
        click.echo(f"Shares are of {yardstick}, measured in the same turns.")
    if options.json_file:
        options.json_file.write_text(json.dumps({**about, "rows": rows}, indent=1))
    if options.plot_file:
        plot(rows, options.plot_file, machine_in_words(about))


def plot(rows: list[Row], path: Path, caption: str) -> None:
    """The rate of every row as bars, a colour for each way."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(9, 1.5 + 0.3 * len(rows)), layout="constrained")
    axes = figure.add_subplot()
    names = [f"{r['way']} {r['direction']} {r['shape']} {r['lengths']}" for r in rows]
    ways = list(dict.fromkeys(row["way"] for row in rows))
    axes.barh(names, [r["rate"] for r in rows], color=[f"C{ways.index(r['way'])}" for r in rows])
    axes.invert_yaxis()
    axes.set_xlabel(f"{rows[0]['unit']} of useful work")
    figure.supxlabel(caption, fontsize=6, wrap=True)
    figure.savefig(path)
