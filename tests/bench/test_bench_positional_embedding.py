"""The benchmark of the positional embedding: its rows, and that its ways do the same work."""

from __future__ import annotations

import json
from pathlib import Path

import mlx.core as mx
import numpy as np
import positional_embedding as bench
import pytest
from click.testing import CliRunner

from mlx_esm_kernels.data.synthetic import make_sample

pytestmark = pytest.mark.usefixtures("quick_turns", "small_copies")


def test_it_prints_and_writes_every_way(tmp_path: Path) -> None:
    data, picture = tmp_path / "a.json", tmp_path / "a.png"
    arguments = [
        "--shapes",
        "2x40x8",
        "--repeats",
        "1",
        "--json",
        str(data),
        "--plot",
        str(picture),
    ]
    done = CliRunner().invoke(bench.main, arguments)
    assert done.exit_code == 0, done.output
    rows = json.loads(data.read_text())["rows"]
    assert {(r["way"], r["lengths"], r["direction"]) for r in rows} == {
        (way, lengths, direction)
        for way in ("ours", "mlx")
        for lengths in ("dense", "real")
        for direction in ("forward", "forward+backward")
    }
    assert all(r["rate"] > 0 and r["unit"] == "GB/s" for r in rows)
    assert picture.stat().st_size > 0
    assert done.output.count(" GB/s ") == len(rows)


def test_real_tokens_are_packed_and_some_are_masked() -> None:
    proteins = make_sample(num_proteins=100).proteins
    tokens, ids = bench.tokens_of((4, 200, 8), proteins)
    assert ids is not None
    assert np.array_equal(tokens != bench.PADDING, ids != 0)
    assert ids.max() > 1
    assert 0.05 < (tokens == bench.MASK).sum() / (ids != 0).sum() < 0.2
    dense, none = bench.tokens_of((4, 200, 8), None)
    assert none is None
    assert (dense != bench.PADDING).all()


def test_backward_counts_the_rows_twice() -> None:
    assert bench.useful_bytes((2, 3, 5), mx.float16, "forward") == 60
    assert bench.useful_bytes((2, 3, 5), mx.float32, "forward+backward") == 240


def test_torch_does_the_same_on_full_rows() -> None:
    pytest.importorskip("torch")
    found = bench.runs_of("torch", (2, 40, 8), mx.float32, None)
    token_gradient, position_gradient = found["forward+backward"]()
    assert found["forward"]().shape == (2, 40, 8)
    assert float(token_gradient[bench.MASK].abs().sum()) == 0
    # Each position occurs once a row, so its gradient is the sum of two rows.
    assert int((position_gradient.abs().sum(-1) > 0).sum()) == 40
