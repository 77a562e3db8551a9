"""The benchmark of rotary positions: its rows, and that its ways do the same work."""

from __future__ import annotations

import json
from pathlib import Path

import mlx.core as mx
import numpy as np
import pytest
import rotary as bench
from click.testing import CliRunner

pytestmark = pytest.mark.usefixtures("quick_turns", "small_copies")


def test_it_prints_and_writes_every_way(tmp_path: Path) -> None:
    data = tmp_path / "a.json"
    arguments = ["--shapes", "2x3x40x8", "--repeats", "1", "--json", str(data)]
    done = CliRunner().invoke(bench.main, arguments)
    assert done.exit_code == 0, done.output
    rows = json.loads(data.read_text())["rows"]
    assert {(row["way"], row["direction"]) for row in rows} == {
        (way, direction)
        for way in ("ours", "mlx", "mx.fast")
        for direction in ("forward", "forward+backward")
    }
    assert all(row["rate"] > 0 and row["unit"] == "GB/s" for row in rows)


def test_the_ways_turn_one_protein_alike(monkeypatch: pytest.MonkeyPatch) -> None:
    found: list[mx.array] = []
    monkeypatch.setattr(mx, "eval", lambda *arrays: found.append(arrays[0]))
    for way in ("ours", "mlx", "mx.fast"):
        bench.runs_of(way, (2, 3, 40, 8), mx.float32, np.ones((2, 40), np.int32))["forward"]()
    turned = [np.array(array) for array in found if array.shape == (2, 3, 40, 8)]
    ours, mlx, fast = turned[1::2]
    np.testing.assert_allclose(ours, mlx, atol=1e-5)
    np.testing.assert_allclose(ours, fast, atol=1e-4)


def test_backward_moves_as_much_again() -> None:
    assert bench.useful_bytes((2, 3, 5, 4), mx.float16, "forward") == 480
    assert bench.useful_bytes((2, 3, 5, 4), mx.float32, "forward+backward") == 1920
