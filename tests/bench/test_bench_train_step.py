"""The benchmark of training steps: what each side trains on, and the figures."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import mlx.core as mx
import numpy as np
import pytest
import train_step as bench
from click.testing import CliRunner, Result
from harness.command import PACKAGES
from harness.sides import Side, length_sorted_batches
from mlx.utils import tree_flatten
from model_benchmarks import timed_against_stock_mlx

from mlx_esm_kernels.data.alphabet import ESM1B
from mlx_esm_kernels.data.masking import mask_tokens
from mlx_esm_kernels.data.synthetic import make_sample
from mlx_esm_kernels.models.config import ESM1Config
from mlx_esm_kernels.training.step import TrainStep

TINY = ESM1Config(1, 16, 32, 2, max_positions=32)

pytestmark = pytest.mark.usefixtures("quick_turns")


def run(*arguments: str) -> Result:
    sizes = ("--shapes", "1x16x32x2", "--tokens-per-batch", "128", "--batches", "1")
    return CliRunner().invoke(bench.main, [*sizes, "--repeats", "1", *arguments])


def test_it_prints_and_writes_every_way(tmp_path: Path) -> None:
    timed_against_stock_mlx(run, tmp_path)


def test_torch_sides_train(tmp_path: Path) -> None:
    pytest.importorskip("torch")
    pytest.importorskip("esm")
    data = tmp_path / "a.json"
    done = run("--against", "fair-esm,transformer-encoder", "--json", str(data))
    assert done.exit_code == 0, done.output
    assert {r["way"] for r in json.loads(data.read_text())["rows"]} == {
        "ours",
        "fair-esm",
        "transformer-encoder",
    }


@pytest.mark.parametrize("way", ["ours", "ours-bfloat16", "mlx", "fair-esm", "transformer-encoder"])
def test_a_side_learns(way: str) -> None:
    """Its loss on one batch falls: the step does train."""
    for package in PACKAGES.get(way, ()):
        pytest.importorskip(package)
    side = bench.side_of(way, TINY, make_sample(num_proteins=40).proteins, 256, 1, "float32")
    losses = []
    for _ in range(60):
        found = side.runs[0]()
        losses.append(found[0] if way.startswith("ours") else found)
    assert losses[-1] < losses[0] - 0.01


def test_lower_precision_is_that_of_the_command(monkeypatch: pytest.MonkeyPatch) -> None:
    """TrainStep's dtype with weights in float32, as training begins; --dtype changes nothing."""
    made = []

    class Seen(TrainStep):
        def __init__(self, *arguments: Any, **options: Any) -> None:
            super().__init__(*arguments, **options)
            made.append(self)

    monkeypatch.setattr(bench, "TrainStep", Seen)
    proteins = make_sample(num_proteins=40).proteins
    for way, dtype in (("ours", "float32"), (bench.LOW, "float32"), (bench.LOW, "bfloat16")):
        bench.side_of(way, TINY, proteins, 256, 1, dtype).runs[0]()
    assert [step.dtype for step in made] == [mx.float32, mx.bfloat16, mx.bfloat16]
    for step in made:
        arrays = [*step.arrays().values(), *(x for _, x in tree_flatten(step.model.parameters()))]
        assert {array.dtype for array in arrays} == {mx.float32}


def test_packed_batches_are_as_large_as_the_budget() -> None:
    batches = bench.packed_batches(make_sample(num_proteins=40).proteins, TINY, 128, 3)
    assert [batch.tokens.shape for batch in batches] == [(4, 32)] * 3


def test_useful_work_is_that_of_matrices_and_pairs() -> None:
    side = Side([], [np.array([10, 20]), np.array([30])], 1.0)
    assert side.residues == 8 + 18 + 28
    matrices = 4 * 16 * 16 + 2 * 16 * 32 + 0.15 * (16 * 16 + 16 * 33)
    expected = 6 * matrices * 60 + 2 * 7 * 16 * (100 + 400 + 900)
    assert bench.useful_flops(side, TINY) == pytest.approx(expected)


def test_torch_has_the_same_targets() -> None:
    pytest.importorskip("torch")
    from against.torch_training import IGNORED, tensors_of

    rng = np.random.default_rng(0)
    (batch,) = length_sorted_batches(make_sample(num_proteins=40).proteins, TINY, 256, 1)
    masked = mask_tokens(batch.tokens, batch.segment_ids, ESM1B, rng)
    inputs, targets = (x.numpy() for x in tensors_of(masked))
    assert np.array_equal(inputs, masked.inputs)
    is_target = targets.reshape(batch.tokens.shape) != IGNORED
    assert np.array_equal(is_target, masked.is_target)
    assert np.array_equal(targets[targets != IGNORED], batch.tokens[is_target])
