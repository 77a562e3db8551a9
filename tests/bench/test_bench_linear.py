"""The benchmark of linear layers: its rows, and that its ways give the same numbers."""

from __future__ import annotations

import json
from pathlib import Path

import linear as bench
import mlx.core as mx
import pytest
from click.testing import CliRunner, Result

pytestmark = pytest.mark.usefixtures("quick_turns")


def run(*arguments: str) -> Result:
    return CliRunner().invoke(
        bench.main, ["--shapes", "40x32x64,40x64x32", "--repeats", "1", *arguments]
    )


def test_it_prints_and_writes_every_way(tmp_path: Path) -> None:
    data = tmp_path / "a.json"
    done = run("--against", "int8,bfloat16,mlx", "--json", str(data))
    assert done.exit_code == 0, done.output
    rows = json.loads(data.read_text())["rows"]
    assert [(row["direction"], row["way"]) for row in rows] == [
        (direction, way)
        for direction in ("with GELU", "forward")
        for way in ("ours", "int8", "bfloat16", "mlx")
    ]
    assert all(row["rate"] > 0 and row["unit"] == "GFLOP/s" for row in rows)
    assert done.output.count("times as fast as ours") == 6


def test_a_way_with_other_numbers_is_not_timed(monkeypatch: pytest.MonkeyPatch) -> None:
    true = bench.runs_of

    def spoilt(*arguments):
        runs = true(*arguments)
        ours = runs["int8"]
        return {**runs, "int8": lambda: mx.where(mx.arange(64) == 3, 9.0, ours())}

    monkeypatch.setattr(bench, "runs_of", spoilt)
    done = run("--shapes", "40x32x64")
    assert done.exit_code != 0
    assert "int8 does not give our numbers" in done.output
