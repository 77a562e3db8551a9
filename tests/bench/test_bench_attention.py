"""The attention benchmark: what it prints and writes, and what it refuses."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import attention as bench
import mlx.core as mx
import numpy as np
import pytest
from click.testing import CliRunner, Result
from fake_metal import FakeMetal, metal
from harness.measuring import Timing

__all__ = ["metal"]

pytestmark = pytest.mark.usefixtures("quick_turns")


def run(*arguments: str) -> Result:
    return CliRunner().invoke(bench.main, list(arguments))


@pytest.fixture(autouse=True)
def no_metal(metal: FakeMetal, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bench._ext, "runs_on_metal", lambda stream: False)


def test_it_prints_and_writes_every_way(tmp_path: Path) -> None:
    data, picture = tmp_path / "a.json", tmp_path / "a.png"
    done = run(
        *("--shapes", "2x1x20x8", "--repeats", "1", "--against", "mlx,mx.fast"),
        *("--json", str(data), "--plot", str(picture)),
    )
    assert done.exit_code == 0, done.output
    rows = json.loads(data.read_text())["rows"]
    assert {(r["way"], r["lengths"], r["direction"]) for r in rows} == {
        (way, lengths, direction)
        for way in ("ours", "mlx", "mx.fast")
        for lengths in ("dense", "real")
        for direction in ("forward", "forward+backward")
    }
    assert all(r["rate"] > 0 and r["unit"] == "GFLOP/s" and r["share"] > 0 for r in rows)
    assert all(r["peak_bytes"] > 0 for r in rows)
    assert picture.stat().st_size > 0
    assert done.output.count(" GFLOP/s ") == len(rows)


def test_tuning_needs_a_metal_gpu() -> None:
    done = run("--tune")
    assert done.exit_code != 0
    assert "--tune needs a Metal GPU" in done.output


def test_every_way_computes_the_same() -> None:
    """Packed proteins and padding: mx.fast's mask is the one that segment ids stand for."""
    ids = mx.array([[1, 1, 1, 2, 2, 0], [1, 1, 1, 1, 1, 1]])
    shape, real = (2, 1, 6, 8), np.array(ids)[:, None, :, None] != 0
    found = [
        np.array(
            bench.mlx_forward(way, shape, ids)(
                *(mx.random.normal(shape, key=mx.random.key(i)) for i in range(3))
            )
        )
        for way in ("ours", "mlx", "mx.fast")
    ]
    for other in found[1:]:
        np.testing.assert_allclose(other * real, found[0], atol=1e-5)


def test_useful_pairs_are_those_of_one_protein() -> None:
    ids = np.array([[1, 1, 1, 2, 0], [1, 2, 2, 2, 2]])
    pairs = ((ids[:, :, None] == ids[:, None, :]) & (ids[:, :, None] != 0)).sum()
    assert bench.useful_pairs((2, 3, 5, 8), mx.array(ids)) == pairs
    assert bench.useful_pairs((2, 3, 5, 8), None) == 2 * 25
    assert bench.useful_flops((2, 3, 5, 8), None, "forward") == 2 * 2 * 3 * 8 * 50


def test_tuning_keeps_the_fastest_tiles(metal: FakeMetal, monkeypatch: pytest.MonkeyPatch) -> None:
    def slow_unless_second(runs: dict[str, Any], repeats: int) -> dict[str, Timing]:
        return {"ours": Timing(float((16, 64) not in metal.tiles.values()), 1, 1.0, 0)}

    monkeypatch.setattr(bench, "alternate", slow_unless_second)
    assert bench.tune((1, 1, 8, 16), mx.float32, 1)["fwd"] == (16, 64)
    metal.tiles.clear()
    bench.tile_search.tiles.load(16, mx.float32)
    assert metal.tiles["fwd"] == (16, 64)
