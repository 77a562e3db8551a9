"""The cost model: its extrapolation is the emulator's count, its laws are those of rooflines."""

from __future__ import annotations

import dataclasses
import json
import platform
import sys
from pathlib import Path

import click
import metal_model
import mlx.core as mx
import numpy as np
import pytest
from click.testing import CliRunner
from metal import chips, mlx_side, roofline
from metal.mlx_side import Pass, Work
from metal.roofline import Met, Shape

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
    """But for rows of two proteins in one fragment, which are multiplied for each of them."""
    packed = np.repeat([1, 2, 3, 4], [48, 112, 16, 80])[None]
    mixed = np.repeat([1, 2, 3, 4], [50, 101, 30, 75])[None]
    for ids, most in ((packed, 1), (None, 1), (mixed, 1.1)):
        counted = roofline.run_counts(16, mx.float32, generation, ids, 256)
        found = roofline.counts_of(Shape(1, 1, 256, 16), mx.float32, generation, ids)
        for kernel in roofline.KERNELS:
            ratios = counted[kernel] / found[kernel]
            assert (ratios >= 1 - 1e-6).all(), kernel
            assert (ratios <= most + 1e-6).all(), kernel


def test_rows_of_padding_cost_at_most_what_is_extrapolated() -> None:
    ids = (np.arange(128) < 77).astype(int)[None]
    counted = roofline.run_counts(16, mx.float32, 13, ids, 128)
    found = roofline.counts_of(Shape(1, 1, 128, 16), mx.float32, 13, ids)
    for kernel in roofline.KERNELS:
        read, *others = found[kernel] / counted[kernel]
        assert 1 <= read < 1.4
        assert (np.array(others) >= 1 - 1e-6).all()
        assert (np.array(others) < 1.15).all()


def test_heads_and_batch_rows_multiply() -> None:
    one = roofline.counts_of(Shape(1, 1, 64, 16), mx.float32, 13, None)
    many = roofline.counts_of(Shape(3, 5, 64, 16), mx.float32, 13, None)
    for kernel in roofline.KERNELS:
        np.testing.assert_allclose(many[kernel], 15 * one[kernel])


def test_mlx_pays_every_pass_over_all_pairs() -> None:
    """Two arrays of float32 and the mask over 1000 x 1000 pairs of one head, from memory."""
    slow, passes = dataclasses.replace(M1, slc_mb=0.0), (Pass("x", 2, True),)
    found = mlx_side.score_passes(slow, Shape(1, 1, 1000, 64), mx.float32, True, passes)
    assert found == Work(pytest.approx(9e6 / (slow.gb_per_s * 1e9)), 1)
    cached = mlx_side.score_passes(M1, Shape(1, 1, 500, 64), mx.float32, True, passes)
    assert cached.seconds == pytest.approx(9 * 500**2 / (2 * M1.gb_per_s * 1e9))


def test_a_product_that_is_slower_than_its_memory_costs_its_operations() -> None:
    shape, passes = Shape(1, 1, 4096, 128), (Pass("x", 1, products=1),)
    found = mlx_side.score_passes(M1, shape, mx.float32, False, passes)
    assert found.seconds == pytest.approx(2 * 128 * 4096**2 / M1.matrix_flops)


def test_a_share_of_the_roofs_makes_launches_no_longer() -> None:
    assert Work(1.0, 2).at(0.5) == pytest.approx(2 + 2 * chips.SECONDS_PER_LAUNCH)
    cost = roofline.Cost({"matrix": 1.0, "threadgroup": 0.5, "memory": 1.2})
    forward, both = roofline.our_seconds(dict.fromkeys(roofline.KERNELS, cost), False, 0.5)
    assert forward == pytest.approx(3 + chips.SECONDS_PER_LAUNCH)
    assert both == pytest.approx(3 * forward)
    masked = roofline.our_seconds(dict.fromkeys(roofline.KERNELS, cost), True, 0.5)
    np.testing.assert_allclose(np.array(masked) - (forward, both), chips.SECONDS_PER_LAUNCH)


def test_loads_of_fragments_add_to_products_and_to_no_other_roof() -> None:
    near = roofline.Cost({"matrix": 5.0, "threadgroup": 4.0, "L2": 8.0, "memory": 1.0})
    assert (near.overlapped, near.added, near.first) == (8.0, 9.0, "L2")
    far = roofline.Cost({"matrix": 5.0, "threadgroup": 4.0, "L2": 10.0, "memory": 1.0})
    assert (far.overlapped, far.added, far.first) == (10.0, 10.0, "L2")


def test_mlx_s_fused_backward_is_its_five_products_and_the_tiles_between() -> None:
    """One head, one tile: memory is so fast that operations alone count, then so slow that 9
    passes of a tile do, and the rows of do, o and the sums of dq, dk and dv."""
    shape = Shape(1, 1, 512, 64)
    products = dataclasses.replace(M1, gb_per_s=1e9)
    found = mlx_side.fused_backward(products, shape, mx.float32)
    assert found.seconds == pytest.approx(5 * 2 * 64 * 512**2 / M1.matrix_flops, rel=1e-3)
    assert found.launches == 1 + 6 + 3
    bytes_only = dataclasses.replace(M1, gb_per_s=1e-3, slc_mb=0.0)
    found = mlx_side.fused_backward(bytes_only, shape, mx.float16)
    moved = 9 * 2 * 512**2 + 512 * 64 * (2 * 2 + 3 * (2 * 2 + 8))
    assert found.seconds == pytest.approx(moved / 1e6)


def test_mlx_s_tiles_end_at_1024() -> None:
    """What fits the cache as tiles would not as L x L, and each tile is launched."""
    chip = dataclasses.replace(M1, slc_mb=2 * 4 * 1024**2 / 1e6)
    one = mlx_side.fused_backward(chip, Shape(1, 1, 1024, 8), mx.float32)
    four = mlx_side.fused_backward(chip, Shape(1, 1, 2048, 8), mx.float32)
    assert 3.9 * one.seconds < four.seconds < 4 * one.seconds
    assert four.launches - 1 == 4 * (one.launches - 1)
    odd = mlx_side.fused_backward(chip, Shape(1, 1, 2049, 8), mx.float32)
    assert odd.launches - 1 == 9 * (one.launches - 1)


@pytest.mark.parametrize(
    ("head_dim", "masked", "gradient", "fused"),
    [
        (64, False, True, True),
        (64, True, False, True),
        (64, True, True, False),
        (32, False, False, False),
        (104, False, True, False),
    ],
)
def test_mlx_is_fused_for_its_head_dims_and_under_a_gradient_without_a_mask(
    head_dim: int, masked: bool, gradient: bool, fused: bool
) -> None:
    assert mlx_side.is_fused(head_dim, masked, gradient) is fused
    shape = Shape(1, 20, 512, head_dim)
    unfused = mlx_side.unfused(M1, shape, mx.float32, masked).at(1.0)
    found = mlx_side.mlx_seconds(M1, shape, mx.float32, masked)
    if gradient:
        assert (found[1] == unfused) is not fused
    else:
        passes = mlx_side.UNFUSED_FORWARD
        forward = mlx_side.score_passes(M1, shape, mx.float32, masked, passes).at(1.0)
        assert (found[0] == forward) is not fused


@pytest.mark.parametrize("faster", ["tflops", "gb_per_s"])
def test_a_better_chip_is_never_slower(faster: str) -> None:
    shape, ids = Shape(2, 2, 128, 16), np.ones((2, 128), int)
    better = dataclasses.replace(M1, **{faster: 2 * getattr(M1, faster)})
    costs = roofline.our_costs(better, shape, mx.float32, ids)
    for kernel, cost in roofline.our_costs(M1, shape, mx.float32, ids).items():
        assert costs[kernel].added <= cost.added
    for dim in (16, 64):
        shape = Shape(2, 2, 128, dim)
        before = mlx_side.mlx_seconds(M1, shape, mx.float32, False)
        after = mlx_side.mlx_seconds(better, shape, mx.float32, False)
        assert all(a <= b for a, b in zip(after, before, strict=True))


def test_shorter_proteins_are_never_dearer_for_ours() -> None:
    shape = Shape(1, 4, 512, 16)
    total = []
    for length in (512, 300, 40):
        ids = (np.arange(512) < length).astype(int)[None]
        costs = roofline.our_costs(M1, shape, mx.float32, ids)
        total.append(roofline.our_seconds(costs, True)[1])
    assert total[0] > total[1] > total[2]


def test_the_chips_are_all_there_and_plausible() -> None:
    assert {chip.generation for chip in chips.CHIPS} == {13, 14, 15, 16, 17}
    for chip in chips.CHIPS:
        assert 1.1e9 < chip.clock < 2.1e9, chip.name


def test_the_command_says_predicted_beside_every_figure(tmp_path: Path) -> None:
    file = tmp_path / "model.json"
    options = ["--shapes", "2x2x128x16", "--chips", "M1,M3 Max", "--json", str(file)]
    run = CliRunner().invoke(metal_model.main, options)
    assert run.exit_code == 0, run.output
    figures = [line for line in run.output.splitlines() if line.startswith(("M1", "M3 Max"))]
    assert len(figures) == 4
    assert all(line.endswith("predicted") for line in figures)
    verdicts = [line for line in run.output.splitlines() if "target" in line]
    assert len(verdicts) == 7
    assert all("predicted" in line for line in verdicts)
    content = json.loads(file.read_text())
    assert content["predicted"] is True
    assert len(content["rows"]) == 4
    for row in content["rows"]:
        assert row["roofs_overlapped"] < row["roofs_added"] < row["ours"] < row["ours_low"]
        assert row["ratio_low"] == pytest.approx(row["mlx"] / row["ours_low"])
    both = CliRunner().invoke(metal_model.main, [*options, "--both-roofs"])
    row = content["rows"][0]
    assert f"{row['roofs_overlapped'] * 1e3:.2f} to {row['roofs_added'] * 1e3:.2f}" in both.output


def test_a_target_that_the_low_share_misses_fell_short(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(metal_model, "registers", lambda dim, dtype: [0])
    monkeypatch.setattr(metal_model, "traffic", lambda *_: {"fwd": (1.0, 1.0)})
    row = {"generation": 13, "ratio": 2.0, "ratio_low": 1.0}
    row |= {"ratio_forward": 2.0, "ratio_low_forward": 1.0}
    later = dict.fromkeys(row, 0.1) | {"generation": 17}

    @click.command()
    def targets() -> None:
        click.echo(metal_model.show_targets([16], mx.float32, [row, later]))

    lines = CliRunner().invoke(targets).output.splitlines()
    assert [line.rsplit(": ", 1)[1] for line in lines[-5:-1]] == [
        *("met", "FELL SHORT"),
        *("met", "met"),
    ]
    assert lines[-1] == "False"


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
