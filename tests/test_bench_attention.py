"""The attention benchmark: what it prints and writes, and what it refuses."""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path
from typing import Any

import mlx.core as mx
import pytest
from click.testing import CliRunner, Result
from fake_metal import FakeMetal, metal

__all__ = ["metal"]

SCRIPT = Path(__file__).parents[1] / "bench" / "attention.py"


def load() -> Any:
    spec = importlib.util.spec_from_file_location("bench_attention", SCRIPT)
    assert spec
    assert spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


bench = load()


def run(*arguments: str) -> Result:
    return CliRunner().invoke(bench.main, list(arguments))


@pytest.fixture(autouse=True)
def no_metal(metal: FakeMetal, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bench._ext, "runs_on_metal", lambda stream: False)


def test_it_prints_and_writes_every_way(tmp_path: Path) -> None:
    data, picture = tmp_path / "a.json", tmp_path / "a.png"
    done = run(
        "--shapes", "2x1x20x8", "--repeats", "1", "--json", str(data), "--plot", str(picture)
    )
    assert done.exit_code == 0, done.output
    rows = json.loads(data.read_text())["rows"]
    assert {(r["way"], r["lengths"], r["direction"]) for r in rows} == {
        (way, lengths, direction)
        for way in ("ours", "mlx")
        for lengths in ("dense", "real")
        for direction in ("forward", "forward+backward")
    }
    assert all(r["gflops"] > 0 for r in rows)
    assert picture.stat().st_size > 0
    assert done.output.count("GFLOP/s") == len(rows)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--tune"], "--tune needs a Metal GPU"),
        (["--shapes", "1x2x3"], "BxHxLxD"),
        (["--against", "jax"], "got jax"),
    ],
)
def test_it_refuses_plainly(arguments: list[str], said: str) -> None:
    done = run(*arguments)
    assert done.exit_code != 0
    assert said in done.output


def test_tuning_keeps_the_fastest_tiles(metal: FakeMetal, monkeypatch: pytest.MonkeyPatch) -> None:
    def slow_unless_second(runs: dict[str, Any], repeats: int) -> dict[str, tuple[float, int]]:
        return {"ours": (float((16, 64) not in metal.tiles.values()), 0)}

    monkeypatch.setattr(bench, "medians", slow_unless_second)
    assert bench.tune((1, 1, 8, 16), mx.float32, 1)["fwd"] == (16, 64)
    metal.tiles.clear()
    bench.tile_search.tiles.load(16, mx.float32)
    assert metal.tiles["fwd"] == (16, 64)
