"""What holds for every benchmark of whole models."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from click.testing import Result


def timed_against_stock_mlx(
    run: Callable[..., Result], folder: Path
) -> tuple[Result, list[dict[str, Any]]]:
    """A run with --json and --plot beside stock MLX, and its rows, which are complete."""
    data, picture = folder / "a.json", folder / "a.png"
    done = run("--against", "mlx", "--json", str(data), "--plot", str(picture))
    assert done.exit_code == 0, done.output
    rows = json.loads(data.read_text())["rows"]
    assert [(r["lengths"], r["way"]) for r in rows] == [
        (lengths, way) for lengths in ("dense", "real") for way in ("ours", "mlx")
    ]
    assert all(r["residues_per_s"] > 0 and r["rate"] > 0 and r["peak_bytes"] > 0 for r in rows)
    assert all(r["fill"] == 1 for r in rows if r["lengths"] == "dense")
    assert done.output.count(" residues/s\n") == len(rows)
    assert picture.stat().st_size > 0
    return done, rows
