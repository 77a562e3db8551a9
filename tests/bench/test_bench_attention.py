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
from harness import command
from harness.measuring import Timing

from mlx_esm_kernels import ops

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


def as_if_on_a_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bench._ext, "runs_on_metal", lambda stream: True)
    monkeypatch.setattr(command, "check_device", lambda device: None)
    monkeypatch.setattr(command, "describe_machine", lambda device: {})
    monkeypatch.setattr(command, "machine_in_words", lambda about: "a GPU")


def test_what_tuning_timed_decides_from_then_on(
    metal: FakeMetal, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where MLX is the faster when dense and ours when padded, each serves there."""
    times = {"ours": {True: 2.0, False: 1.0}, "mlx": {True: 1.5, False: 3.0}}

    def measure(shape: Any, dtype: Any, ids: Any, *_: Any) -> list[dict[str, Any]]:
        lengths = "dense" if ids is None else "real"
        return [
            {"way": way, "direction": direction, "shape": shape, "lengths": lengths, "fill": 1.0,
             "seconds": times[way][ids is None], "unit": "GFLOP/s", "rate": 1.0, "share": 1.0,
             "yardstick": "none", "peak_bytes": 0}
            for way in times for direction in bench.DIRECTIONS
        ]  # fmt: skip

    monkeypatch.setattr(bench, "measure", measure)
    monkeypatch.setattr(bench, "tune", lambda *_: {})
    as_if_on_a_gpu(monkeypatch)
    result = run("--tune", "--device", "gpu", "--shapes", "1x1x64x16")
    assert result.exit_code == 0, result.output
    x, ids = mx.zeros((1, 1, 64, 16)), mx.ones((1, 64), mx.int32)
    ops.masked_attention(x, x, x)
    assert metal.calls[-1] == ("masked_attention", False)
    ops.masked_attention(x, x, x, segment_ids=ids)
    assert metal.calls[-1] == ("masked_attention", True)


def test_tuning_needs_something_to_compare_with(monkeypatch: pytest.MonkeyPatch) -> None:
    as_if_on_a_gpu(monkeypatch)
    result = run("--tune", "--device", "gpu", "--against", "mx.fast")
    assert "--tune compares with MLX's ops; add mlx to --against." in result.output
