"""The cost model: its extrapolation is the emulator's count, its laws are those of rooflines."""

from __future__ import annotations

import dataclasses
import json
import platform
import sys
from pathlib import Path

import metal_model
import mlx.core as mx
import numpy as np
import pytest
from click.testing import CliRunner
from metal import chips, roofline
from metal.roofline import Met, Pass, Shape

M1 = chips.CHIPS[0]


def test_blocks_met_are_those_of_the_block_map() -> None:
    """Proteins of 80 and 48 and padding of 12: the picture in masked_attention.md."""
    ids = np.repeat([1, 2, 0], [80, 48, 12])[None]
    assert roofline.blocks_met(ids, 140, 32) == [Met(5, 5, 7)]
    assert roofline.blocks_met(ids, 140, 16) == [Met(9, 10, 14)]
    assert roofline.blocks_met(ids, 140, 64) == [Met(3, 2, 5)]
    assert roofline.blocks_met(None, 96, 32) == [Met(3, 9, 0)]


@pytest.mark.parametrize("generation", [13, 17])
def test_the_extrapolation_is_what_the_emulator_counts(generation: int) -> None:
    packed = np.repeat([1, 2, 3, 4], [50, 101, 30, 75])[None]
    for ids in (packed, None):
        counted = roofline.run_counts(16, mx.float32, generation, ids, 256)
        found = roofline.counts_of(Shape(1, 1, 256, 16), mx.float32, generation, ids)
        for kernel in roofline.KERNELS:
            np.testing.assert_allclose(found[kernel], counted[kernel], rtol=1e-6, err_msg=kernel)


def test_rows_of_padding_cost_at_most_what_is_extrapolated() -> None:
    ids = (np.arange(128) < 77).astype(int)[None]
    counted = roofline.run_counts(16, mx.float32, 13, ids, 128)
    found = roofline.counts_of(Shape(1, 1, 128, 16), mx.float32, 13, ids)
    for kernel in roofline.KERNELS:
        read, *others = found[kernel] / counted[kernel]
        assert 1 <= read < 1.4
        np.testing.assert_allclose(others, 1)


def test_heads_and_batch_rows_multiply() -> None:
    one = roofline.counts_of(Shape(1, 1, 64, 16), mx.float32, 13, None)
    many = roofline.counts_of(Shape(3, 5, 64, 16), mx.float32, 13, None)
    for kernel in roofline.KERNELS:
        np.testing.assert_allclose(many[kernel], 15 * one[kernel])


def test_mlx_pays_every_pass_over_all_pairs() -> None:
    """Two arrays of float32 and the mask over 1000 x 1000 pairs of one head, from memory."""
    slow = dataclasses.replace(M1, slc_mb=0.0)
    found = roofline.mlx_seconds(
        slow, Shape(1, 1, 1000, 64), mx.float32, True, (Pass("x", 2, True),)
    )
    assert found == pytest.approx(9e6 / (slow.gb_per_s * 1e9) + roofline.SECONDS_PER_LAUNCH)
    cached = roofline.mlx_seconds(M1, Shape(1, 1, 500, 64), mx.float32, True, (Pass("x", 2, True),))
    expected = 9 * 500**2 / (2 * M1.gb_per_s * 1e9) + roofline.SECONDS_PER_LAUNCH
    assert cached == pytest.approx(expected)


def test_a_product_that_is_slower_than_its_memory_costs_its_operations() -> None:
    found = roofline.mlx_seconds(
        M1, Shape(1, 1, 4096, 128), mx.float32, False, (Pass("x", 1, products=1),)
    )
    flops = 2 * 128 * 4096**2
    assert found == pytest.approx(flops / M1.matrix_flops + roofline.SECONDS_PER_LAUNCH)


@pytest.mark.parametrize("faster", ["tflops", "gb_per_s"])
def test_a_better_chip_is_never_slower(faster: str) -> None:
    shape, ids = Shape(2, 2, 128, 16), np.ones((2, 128), int)
    better = dataclasses.replace(M1, **{faster: 2 * getattr(M1, faster)})
    for kernel, (seconds, _) in roofline.our_seconds(M1, shape, mx.float32, ids).items():
        assert roofline.our_seconds(better, shape, mx.float32, ids)[kernel][0] <= seconds


def test_shorter_proteins_are_never_dearer_for_ours() -> None:
    shape = Shape(1, 4, 512, 16)
    total = []
    for length in (512, 300, 40):
        ids = (np.arange(512) < length).astype(int)[None]
        found = roofline.our_seconds(M1, shape, mx.float32, ids)
        total.append(sum(seconds for seconds, _ in found.values()))
    assert total[0] > total[1] > total[2]


def test_the_chips_are_all_there_and_plausible() -> None:
    assert {chip.generation for chip in chips.CHIPS} == {13, 14, 15, 16, 17}
    for chip in chips.CHIPS:
        assert 1.1e9 < chip.clock < 2.1e9, chip.name


def test_the_command_says_predicted_beside_every_figure(tmp_path: Path) -> None:
    file = tmp_path / "model.json"
    run = CliRunner().invoke(
        metal_model.main, ["--shapes", "2x2x128x16", "--chips", "M1,M3 Max", "--json", str(file)]
    )
    assert run.exit_code == 0, run.output
    figures = [line for line in run.output.splitlines() if line.startswith(("M1", "M3 Max"))]
    assert len(figures) == 4
    assert all(line.endswith("predicted") for line in figures)
    verdicts = [line for line in run.output.splitlines() if "target" in line]
    assert len(verdicts) == 5
    assert all("predicted" in line for line in verdicts)
    content = json.loads(file.read_text())
    assert content["predicted"] is True
    assert len(content["rows"]) == 4


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--chips", "M9"], "got M9"),
        (["--shapes", "1x2"], "BxHxLxD"),
        (["--shapes", "1x1x64x12"], "D = 12"),
    ],
)
def test_it_refuses_plainly(arguments: list[str], said: str) -> None:
    run = CliRunner().invoke(metal_model.main, arguments)
    assert run.exit_code != 0
    assert said in run.output


@pytest.mark.parametrize(
    ("gone", "said"),
    [("ziglang", 'run `pip install -e ".[emulator]"`.'), ("machine", "this is Darwin arm64; ")],
)
def test_without_the_emulator_it_says_in_a_sentence_what_to_do(
    gone: str, said: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    if gone == "machine":
        monkeypatch.setattr(platform, "system", lambda: "Darwin")
        monkeypatch.setattr(platform, "machine", lambda: "arm64")
    else:
        monkeypatch.setitem(sys.modules, gone, None)
    run = CliRunner().invoke(metal_model.main, [])
    assert run.exit_code == 1
    assert isinstance(run.exception, SystemExit)
    assert said in run.output
    assert run.output.count("\n") == 1
    assert CliRunner().invoke(metal_model.main, ["--help"]).exit_code == 0
