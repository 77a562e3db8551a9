"""The report of doctor as lines for a person, short enough to paste."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from ..ops import cpu_target, num_threads
from ..ops.health import Report
from ..system.machine import memory_gb

DTYPES = ("float32", "float16", "bfloat16")
Entry = dict[str, Any]


def machine_lines(report: Report) -> list[str]:
    """Versions, system, chip and device."""
    versions = ", ".join(f"{name} {version}" for name, version in report.versions.items())
    lines = [f"versions  {versions}", f"system    {report.system}"]
    chip, memory = report.chip, memory_gb()
    if chip is not None:
        lines.append(
            f"chip      {chip['name']} ({chip['architecture']}, generation {chip['generation']})"
        )
    lines.append(f"memory    {memory:,.0f} GB" if memory else "memory    unknown")
    where = {
        "metal": "our Metal kernels run",
        "metal-emulator": "our Metal kernels run on the CPU; no time means anything",
        "cpu": f"MLX has no Metal GPU here, our CPU ops run: {cpu_target()}, "
        f"{num_threads()} threads",
    }
    return [*lines, f"device    {report.device}: {where.get(report.device, 'not known')}"]


def check_lines(report: Report) -> list[str]:
    """A line for each op and head dim, a column for each dtype."""
    compiled = ["compiled in"] if report.compile else []
    rows = [["checks against float64", *DTYPES, *compiled]]
    for op, head_dim in _unique((check["op"], check["head_dim"]) for check in report.checks):
        own = [c for c in report.checks if (c["op"], c["head_dim"]) == (op, head_dim)]
        cells = [_verdict([c for c in own if c["dtype"] == dtype]) for dtype in DTYPES]
        keys = [(entry["op"], entry["head_dim"]) for entry in report.compile]
        if compiled and (op, head_dim) in keys:
            own = [c for c, key in zip(report.compile, keys, strict=True) if key == (op, head_dim)]
            cells.append(f"{sum(c['seconds'] for c in own):.2f} s")
        rows.append([_name(op, head_dim), *cells, *["-"] * (len(rows[0]) - 1 - len(cells))])
    return ["", *_table(rows), "  (results checked, and the largest error as a part of its limit)"]


def _verdict(checks: Sequence[Entry]) -> str:
    if not checks:
        return "-"
    failed = sum(not check["passed"] for check in checks)
    if failed:
        return f"{failed} of {len(checks)} FAILED"
    shares = (c["error"] / c["limit"] for c in checks if c["limit"])
    return f"{len(checks)} ok, {max(shares, default=0.0):.2f}"


def serve_lines(report: Report) -> list[str]:
    """A line for calls that are served by the same code for the same reason."""
    groups: dict[tuple[Any, ...], list[Entry]] = {}
    for entry in report.serves:
        key = tuple(entry[name] for name in ("op", "call", "ours", "reason"))
        groups.setdefault(key, []).append(entry)
    merged: dict[tuple[Any, ...], list[str]] = {}
    for (op, call, ours, reason), entries in groups.items():
        dims = tuple(_unique(e["head_dim"] for e in entries))
        dtypes = tuple(_unique(e["dtype"] for e in entries))
        merged.setdefault((op, dims, dtypes, ours, reason), []).append(call)
    rows = [["what serves", "dtype", "calls", "why"]]
    for (op, dims, dtypes, ours, reason), calls in merged.items():
        name = _name(op, ", ".join(map(str, dims)) if dims != (None,) else None)
        kinds = "all" if len(dtypes) == len(DTYPES) else ", ".join(dtypes)
        who = f"{'ours' if ours else 'MLX'}: {reason}"
        rows.append([name, kinds, "all" if len(calls) == 3 else ", ".join(calls), who])
    return ["", *_table(rows)]


def timing_lines(report: Report) -> list[str]:
    """A line for each call, a column for each direction and side."""
    rows = [["attention (B, H, L, D)", "lengths", "direction", "ours", "MLX's ops", "MLX / ours"]]
    for row in report.timings:
        ours, mlx = row["ours"], row["mlx"]
        times = [f"{1e3 * seconds:,.2f} ms" for seconds in (ours, mlx)]
        shape = " x ".join(map(str, row["shape"]))
        rows.append([shape, row["lengths"], row["direction"], *times, f"{mlx / ours:.2f}"])
    return ["", *_table(rows, numbers=3)]


def _name(op: str, head_dim: Any) -> str:
    return op if head_dim is None else f"{op}, D = {head_dim}"


def _unique(items: Iterable[Any]) -> list[Any]:
    return list(dict.fromkeys(items))


def _table(rows: list[list[str]], numbers: int = 0) -> list[str]:
    """Columns beside each other, the last ones numbers; all but the heading are indented."""
    lined = [[("  " if i else "") + row[0], *row[1:]] for i, row in enumerate(rows)]
    widths = [max(map(len, column)) for column in zip(*lined, strict=True)]
    words = len(widths) - numbers
    padded = (
        [cell.ljust(n) if i < words else cell.rjust(n) for i, (cell, n) in enumerate(cells)]
        for cells in (zip(row, widths, strict=True) for row in lined)
    )
    return ["  ".join(row).rstrip() for row in padded]
