"""The benchmark of embeddings: that all sides give the same vectors, and the figures."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path

import click
import embed as bench
import mlx.core as mx
import numpy as np
import pytest
from click.testing import CliRunner, Result
from harness.command import PACKAGES
from harness.processes import workers
from harness.sides import Side, padded
from model_benchmarks import timed_against_stock_mlx

from mlx_esm_kernels.data.proteins import Proteins
from mlx_esm_kernels.data.synthetic import make_sample
from mlx_esm_kernels.models.config import ESM1Config

TINY = ESM1Config(2, 16, 32, 2, max_positions=32)

pytestmark = pytest.mark.usefixtures("quick_turns")


def run(*arguments: str) -> Result:
    sizes = ("--shapes", "1x16x32x2", "--tokens-per-batch", "128", "--batches", "2")
    return CliRunner().invoke(bench.main, [*sizes, "--repeats", "1", *arguments])


def test_it_prints_and_writes_every_way(tmp_path: Path) -> None:
    done, rows = timed_against_stock_mlx(run, tmp_path)
    assert all(r["fill"] == 1 for r in rows if r["way"] == "ours")
    assert "The vectors of mlx differ from ours by at most" in done.output


def test_our_own_sides_are_timed_on_the_same_proteins(tmp_path: Path) -> None:
    data = tmp_path / "a.json"
    done = run("--against", "ours-bfloat16,ours-int8", "--json", str(data))
    assert done.exit_code == 0, done.output
    rows = json.loads(data.read_text())["rows"]
    assert [r["way"] for r in rows] == ["ours", "ours-bfloat16", "ours-int8"] * 2
    assert all(0 < r["difference"] < 0.1 for r in rows if r["way"] != "ours")
    assert all(r["fill"] == 1 and r["peak_bytes"] > 0 for r in rows)


def test_torch_sides_are_timed(tmp_path: Path) -> None:
    for package in ("torch", "esm", "transformers"):
        pytest.importorskip(package)
    data = tmp_path / "a.json"
    ways = ["fair-esm", "transformers", "transformers-bfloat16"]
    done = run("--against", ",".join(ways), "--json", str(data))
    assert done.exit_code == 0, done.output
    rows = json.loads(data.read_text())["rows"]
    assert [r["way"] for r in rows] == ["ours", *ways] * 2
    found = {r["way"]: r["difference"] for r in rows}
    assert found["transformers"] < 1e-4 < 1e-3 < found["transformers-bfloat16"]
    assert "The vectors of transformers-bfloat16 differ" in done.output


def difference_of(way: str, config: ESM1Config, dtype: str, python: str = "") -> float:
    embedder = bench.embedder_of(config, dtype, 256)
    proteins = make_sample(num_proteins=40).proteins
    tolerance = bench.TOLERANCE[dtype]
    if way == "mlx":
        others = {way: bench.stock_embedder(embedder.model)}
        return bench.require_agreement(embedder, others, proteins, tolerance)[way]
    with workers(embedder.model, {way: python}) as started:
        others = {way: started[way].prepare}
        return bench.require_agreement(embedder, others, proteins, tolerance)[way]


@pytest.mark.parametrize("dtype", bench.TOLERANCE)
@pytest.mark.parametrize("way", ["mlx", "fair-esm", "transformers"])
@pytest.mark.parametrize("model", bench.MODELS)
def test_a_side_gives_our_vectors(model: str, way: str, dtype: str) -> None:
    if way == "fair-esm" and dtype != "float32":
        pytest.skip("fair-esm's model runs in float32")
    for package in PACKAGES[way]:
        pytest.importorskip(package)
    config = bench.config_of(model, (2, 16, 64, 2))
    assert difference_of(way, config, dtype) > 0  # else one side is compared with itself


def test_esm_cpp_runs_in_an_interpreter_of_its_own(tmp_path: Path, esm_cpp_python: str) -> None:
    data = tmp_path / "a.json"
    chosen = ("--model", "esm2", "--against", "esm-cpp", "--esm-cpp", esm_cpp_python)
    done = run(*chosen, "--json", str(data))
    assert done.exit_code == 0, done.output
    assert "vectors of esm-cpp 9, none differ from ours by at most" in done.output
    rows = json.loads(data.read_text())["rows"]
    assert [row["way"] for row in rows] == ["ours", "esm-cpp"] * 2
    assert all(row["seconds"] > 0 for row in rows)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("--model", "esm1b", "--esm-cpp", sys.executable), "is for --model esm2"),
        (("--model", "esm2"), "needs --esm-cpp PYTHON"),
        (("--model", "esm2", "--esm-cpp", sys.executable), "its process ended, see above"),
        (
            ("--model", "esm2", "--esm-cpp", "no-such-python"),
            "no-such-python does not run: No such",
        ),
    ],
)
def test_what_esm_cpp_lacks_is_said(arguments: tuple[str, ...], said: str) -> None:
    done = run("--against", "esm-cpp", *arguments)
    assert done.exit_code != 0
    assert said in done.output


@pytest.mark.parametrize(
    "spoil",
    [lambda x: 1.01 * x, lambda x: mx.where(mx.arange(16) == 3, mx.array(float("nan")), x)],
    ids=["other numbers", "a NaN"],
)
def test_a_side_with_other_vectors_is_not_timed(
    spoil: Callable[[mx.array], mx.array], monkeypatch: pytest.MonkeyPatch
) -> None:
    true = bench.stock_embedder

    def spoilt(*arguments):
        prepare = true(*arguments)
        return lambda batch: lambda: spoil(prepare(batch)())

    monkeypatch.setattr(bench, "stock_embedder", spoilt)
    done = run("--against", "mlx")
    assert done.exit_code != 0
    assert isinstance(done.exception, SystemExit | click.ClickException)
    assert "mlx does not give our vectors with our weights" in done.output
    assert "residues/s" not in done.output


def test_the_mean_is_over_residues_and_not_over_cls_eos_and_padding() -> None:
    batch = padded([np.arange(4, 9), np.arange(4, 6)])
    x = np.random.default_rng(0).normal(size=(*batch.tokens.shape, 3))
    means = (bench.residue_weights(batch) @ x)[:, 0]
    np.testing.assert_allclose(means, [x[0, 1:6].mean(0), x[1, 1:3].mean(0)], rtol=1e-6)


def test_ours_takes_whole_groups_of_the_fasta_without_padding() -> None:
    proteins = Proteins.from_sequences("A" * n for n in (5, 40, 10, 8, 30, 3))
    embedder = bench.embedder_of(TINY, "float32", 48)
    side = bench.our_side(embedder, proteins, 99)
    # 40 residues are cropped to the 30 of the position table.
    assert [lengths.tolist() for lengths in side.lengths] == [[7, 32], [12, 10], [32, 5]]
    assert side.fill == 1
    assert [run().shape for run in side.runs] == [(2, 16)] * 3


def test_useful_work_is_that_of_one_pass_through_the_layers() -> None:
    side = Side([], [np.array([10, 20])], 1.0)
    matrices = 2 * (4 * 16 * 16 + 2 * 16 * 32)
    assert bench.useful_flops(side, TINY) == 2 * matrices * 30 + 2 * 4 * 16 * (100 + 400)
