"""What was timed on a Mac, beside what was predicted for its chip."""

from __future__ import annotations

import json
import math
import statistics
from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click
import mlx.core as mx
import numpy as np
from harness.measuring import DTYPES

from mlx_esm_kernels import _ext
from mlx_esm_kernels.ops.dispatch import rule_prefers_mlx
from mlx_esm_kernels.ops.health import FORMAT
from mlx_esm_kernels.ops.trials import BOTH, FORWARD

from . import mlx_side, roofline
from .chips import CHIPS, LOW_SHARE, MLX_SHARE, SHARE, Chip
from .emulator import require_emulator
from .roofline import Shape

DIRECTIONS = (FORWARD, BOTH)
LENGTHS = ("dense", "padded", "packed")


@dataclass(frozen=True)
class Timing:
    """Seconds of both sides for one call; ids (B, L), or None where it is dense."""

    shape: Shape
    lengths: str
    ids: np.ndarray | None
    dtype: str
    direction: str
    ours: float
    mlx: float

    def __str__(self) -> str:
        return f"{self.shape!s:16} {self.lengths:6} {self.dtype:8} {self.direction:16}"


@dataclass(frozen=True)
class Report:
    """What came back from one Mac. chip: as Metal names it, such as Apple M1."""

    chip: str
    system: str
    versions: dict[str, str]
    timings: list[Timing]


def read_report(path: Path) -> Report:
    """What `mlx-esm doctor --json FILE` has written.

    Raises:
        click.ClickException: it is no such file, or there is nothing in it to compare.
    """
    try:
        content = json.loads(path.read_text("utf-8"))
    except (OSError, ValueError) as error:
        raise _no_report(path, f"it is not JSON ({error})") from error
    if not isinstance(content, dict) or content.get("format") != FORMAT:
        given = content.get("format") if isinstance(content, dict) else content
        raise _no_report(path, f'its "format" must be {FORMAT!r}; got {str(given)[:60]!r}')
    chip = content.get("chip")
    if content.get("device") != "metal" or not isinstance(chip, dict) or "name" not in chip:
        raise click.ClickException(
            f"{path} was written without a Metal GPU (device {content.get('device')!r}), and there "
            "is nothing to compare in it; run `mlx-esm doctor --json FILE` on a Mac."
        )
    rows = content.get("timings")
    if not isinstance(rows, list) or not rows:
        raise click.ClickException(
            f"{path} holds no timings; run `mlx-esm doctor --json FILE` anew, to its end."
        )
    timings = []
    for number, row in enumerate(rows):
        try:
            timings.append(timing_of(row))
        except (KeyError, TypeError, ValueError) as error:
            raise _no_report(path, f"timing {number} is not one ({error!r})") from error
    versions = content.get("versions")
    return Report(
        str(chip["name"]),
        str(content.get("system", "a system that is not named")),
        versions if isinstance(versions, dict) else {},
        timings,
    )


def _no_report(path: Path, why: str) -> click.ClickException:
    return click.ClickException(
        f"{path} is not what `mlx-esm doctor --json FILE` writes: {why}. Give such a file."
    )


def timing_of(row: dict[str, Any]) -> Timing:
    """A row of the file; raises KeyError, TypeError or ValueError where it is not one."""
    shape = Shape(*(int(n) for n in row["shape"]))
    if min(shape.B, shape.H, shape.L, shape.D) < 1:
        raise ValueError(f"sizes must be positive; got {shape}")
    for value, known in (
        (row["lengths"], LENGTHS),
        (row["dtype"], DTYPES),
        (row["direction"], DIRECTIONS),
    ):
        if value not in known:
            raise ValueError(f"expected one of {', '.join(known)}; got {value}")
    ours, mlx = float(row["ours"]), float(row["mlx"])
    if not (0 < ours < math.inf and 0 < mlx < math.inf):
        raise ValueError(f"seconds must be positive; got {ours} and {mlx}")
    ids = None if row["lengths"] == "dense" else ids_of(row["segments"], shape)
    return Timing(shape, row["lengths"], ids, row["dtype"], row["direction"], ours, mlx)


def ids_of(segments: list[list[int]], shape: Shape) -> np.ndarray:
    """(B, L) segment ids of segments that follow each other in each row; the rest is padding.

    Raises:
        ValueError: they are not B rows, or longer than L.
    """
    if len(segments) != shape.B:
        raise ValueError(f"segments of {shape.B} rows were expected; got {len(segments)}")
    ids = np.zeros((shape.B, shape.L), int)
    for row, lengths in zip(ids, segments, strict=True):
        if sum(lengths) > shape.L or min(lengths, default=1) < 1:
            raise ValueError(f"segments of at most {shape.L} tokens were expected; got {lengths}")
        row[: sum(lengths)] = np.repeat(np.arange(1, len(lengths) + 1), lengths)
    return ids


def compare(report: Report) -> None:
    """Print what was measured, where dispatch's rule is wrong there, and the shares reached.

    Raises:
        click.ClickException: the chip is known and the emulator, which predicts, does not run.
    """
    versions = ", ".join(f"{name} {version}" for name, version in report.versions.items())
    click.echo(f"Measured on {report.chip}, {report.system}{versions and '; ' + versions}.")
    for timing in report.timings:
        click.echo(
            f"{timing}{timing.ours * 1e3:9.3f} ms ours {timing.mlx * 1e3:9.3f} ms MLX, "
            f"MLX over ours {timing.mlx / timing.ours:.2f} measured"
        )
    show_dispatch(report.timings)
    chip = chip_named(report.chip)
    if chip is None:
        known = ", ".join(chip.name for chip in CHIPS)
        click.echo(
            f"\nCores and rates of {report.chip} are not known here, so nothing is predicted for "
            f"it. Known are {known}: add it to bench/metal/chips.py."
        )
        return
    require_emulator()
    show_shares(chip, report.timings)


def chip_named(name: str) -> Chip | None:
    """Apple M1 Max -> that chip."""
    return next((chip for chip in CHIPS if chip.name == name.removeprefix("Apple ")), None)


def show_dispatch(timings: Iterable[Timing]) -> None:
    """Print the calls for which the measured winner is another than the rule's choice."""
    both = [timing for timing in timings if timing.direction == BOTH]
    wrong = [
        timing
        for timing in both
        if rule_prefers_mlx(timing.shape.D, timing.ids is None) == (timing.ours < timing.mlx)
    ]
    click.echo(
        f"\nOf {len(both)} calls timed with gradients, the rule of dispatch.py takes the slower "
        f"side in {len(wrong)}" + (":" if wrong else ".")
    )
    for timing in wrong:
        taken, faster = ("MLX", "ours") if timing.ours < timing.mlx else ("ours", "MLX")
        times = sorted((timing.ours, timing.mlx), reverse=True)
        click.echo(f"  {timing} {taken} is taken, {faster} was {times[0] / times[1]:.2f} x as fast")


def predicted(
    chip: Chip, timing: Timing, our_share: float = 1.0, mlx_share: float = 1.0
) -> tuple[float, float]:
    """Predicted seconds of ours and of MLX's for this call, these shares of the roofs reached."""
    dtype: mx.Dtype = DTYPES[timing.dtype]
    at = DIRECTIONS.index(timing.direction)
    masked = timing.ids is not None
    costs = roofline.our_costs(chip, timing.shape, dtype, timing.ids)
    ours = roofline.our_seconds(costs, masked, our_share)[at]
    return ours, mlx_side.mlx_seconds(chip, timing.shape, dtype, masked, mlx_share)[at]


def share_reached(pairs: Iterable[tuple[float, float]]) -> tuple[float, float]:
    """The one share that fits best, by least squares of logarithms, and its spread as a factor.

    pairs: seconds at all of the roofs, and those that were measured.
    """
    logs = [math.log(roofs / seconds) for roofs, seconds in pairs]
    return math.exp(statistics.fmean(logs)), math.exp(statistics.pstdev(logs))


def show_shares(chip: Chip, timings: Iterable[Timing]) -> None:
    """Print predictions beside times, and the share of the roofs that each side reached."""
    click.echo(
        f"\nPredicted for an {chip.name} of {chip.cores} cores (a chip of fewer has lower roofs), "
        "at the shares that predictions assume, over what was measured; 1 is as predicted:"
    )
    groups: dict[tuple[str, str, str], list[tuple[float, float]]] = defaultdict(list)
    for timing in timings:
        if not _ext.attention_served(timing.shape.D, DTYPES[timing.dtype]):
            click.echo(f"{timing} no kernel of ours serves this D, so nothing is predicted")
            continue
        ours, mlx = predicted(chip, timing, SHARE, MLX_SHARE)
        low, _ = predicted(chip, timing, LOW_SHARE)
        click.echo(
            f"{timing} ours {ours / timing.ours:5.2f}  ours low {low / timing.ours:5.2f}  "
            f"MLX {mlx / timing.mlx:5.2f} predicted over measured"
        )
        kind = (timing.direction, timing.dtype)
        ours, mlx = predicted(chip, timing)
        groups[("ours", *kind)].append((ours, timing.ours))
        groups[("MLX", *kind)].append((mlx, timing.mlx))
    click.echo("\nShares of the roofs that were reached, fitted to what was measured:")
    for (side, direction, dtype), pairs in sorted(groups.items()):
        share, spread = share_reached(pairs)
        assumed = f"{SHARE}, low {LOW_SHARE}" if side == "ours" else f"{MLX_SHARE}"
        click.echo(
            f"  {side:4} {direction:16} {dtype:8} {share:.2f}, times or over {spread:.2f} "
            f"({len(pairs)} calls; assumed {assumed})"
        )
