"""The benchmark of generating: its figures of proteins that are known, and a run of it."""

from __future__ import annotations

import json
from pathlib import Path

import generation as bench
import mlx.core as mx
import numpy as np
import pytest
from click.testing import CliRunner

from mlx_esm_kernels.data.synthetic import make_sample
from mlx_esm_kernels.models.config import ESM1Config
from mlx_esm_kernels.models.esm1 import ESM1
from mlx_esm_kernels.weights.native import save_weights

FAMILIES = make_sample(num_proteins=1).families


def test_proteins_of_the_families_have_their_entropy_and_their_pairs() -> None:
    row = bench.measured("a", FAMILIES, bench.drawn(FAMILIES, 4000))
    entropies = []
    for family in FAMILIES:
        alone = np.setdiff1d(np.arange(len(family)), family.pairs)
        parts = [family.profile[alone].ravel(), family.joints.ravel()]
        entropies.append(sum((p[p > 0] * np.log(p[p > 0])).sum() for p in parts) / len(family))
    assert row.nats == pytest.approx(np.mean(entropies), abs=4 * row.error)
    assert row.impossible < 1e-4
    assert 0.9 < row.pairs < 0.92  # loyal ones, and some by chance


def test_positions_on_their_own_are_less_likely_and_rarely_agree() -> None:
    both = bench.measured("a", FAMILIES, bench.drawn(FAMILIES, 400))
    apart = [family.without_pairs() for family in FAMILIES]
    alone = bench.measured("b", FAMILIES, bench.drawn(apart, 400))
    assert alone.nats < both.nats - 0.5
    assert alone.pairs < 0.2


@pytest.mark.filterwarnings("ignore::mlx_esm_kernels.inference.sampling.SamplerWarning")
def test_a_run_has_a_row_of_each_sampler(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    mx.random.seed(0)
    config = ESM1Config(num_layers=1, embed_dim=16, ffn_dim=16, num_heads=2)
    save_weights(tmp_path / "w.safetensors", ESM1(config))
    quick = {name: bench.SAMPLERS[name] for name in ("unmask, 8 steps", "gibbs, 20 rounds")}
    monkeypatch.setattr(bench, "SAMPLERS", quick)
    options = ["--weights-file", str(tmp_path / "w.safetensors"), "--proteins", "8"]
    options += ["--json", str(tmp_path / "found.json")]
    done = CliRunner().invoke(bench.main, options, catch_exceptions=False)
    assert done.exit_code == 0
    found = json.loads((tmp_path / "found.json").read_text())
    assert [row["way"] for row in found["rows"][2:]] == list(quick)
    assert all(row["nats"] < -3 for row in found["rows"][2:])  # the model knows nothing
