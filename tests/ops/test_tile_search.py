"""The search for the fastest tiles, on the emulated GPU: the kernels run with every candidate."""

from __future__ import annotations

import logging
import re
from collections.abc import Iterator
from typing import Any

import attention as bench
import mlx.core as mx
import pytest
from metal_emulator import Emulator, emulating
from problems import AttentionProblem, check_results, results

from mlx_esm_kernels import _ext, ops
from mlx_esm_kernels.ops import dispatch, self_test, tile_search, tiles

DIM = 16
SMALL, LARGE = (32, 8, 2, True, False), (64, 32, 2, True, False)
CANDIDATES = [SMALL, LARGE]
PROBLEM = AttentionProblem((1, 2, 40, DIM), segments="runs")


class Device:
    """The emulated GPU; `ran` holds kernel and tiles of every launch over rows."""

    def __init__(self) -> None:
        self.ran: list[tuple[str, tiles.Tiles]] = []
        self.broken: tiles.Tiles | None = None  # tiles with which kernels are wrong
        self._emulator = Emulator(orders=(0,))

    def execute(self, plan: list[dict[str, Any]]) -> None:
        for launch in plan:
            found = dict(re.findall(r"#define ([A-Z_]+) (\d+)\n", launch["source"]))
            if "ROWS" in found:
                numbers = [int(found[name]) for name in ("ROWS", "TILE", "ROW_FRAGMENTS")]
                flags = [found[name] == "1" for name in ("HELD", "FENCED")]
                of_kernel = (numbers[0], numbers[1], numbers[2], flags[0], flags[1])
                self.ran.append((launch["kernel"].removeprefix("masked_attention_"), of_kernel))
                if of_kernel == self.broken:
                    launch["source"] = launch["source"].replace("x.total *= rescale;", "")
        self._emulator.execute(plan)


@pytest.fixture
def device(monkeypatch: pytest.MonkeyPatch) -> Iterator[Device]:
    monkeypatch.setattr(dispatch, "_default_choice", "auto")
    monkeypatch.setattr(self_test, "_mode", "auto")
    monkeypatch.setattr(self_test, "_verdicts", {})
    monkeypatch.setattr(_ext, "attention_tile_candidates", lambda *_: CANDIDATES)
    found = Device()
    with emulating(found.execute):
        yield found
        for kernel in tiles.KERNELS:
            _ext.set_attention_tiles(kernel, DIM, mx.float32, None)


def restart(monkeypatch: pytest.MonkeyPatch) -> None:
    """A new process: it knows what the cache folder knows."""
    monkeypatch.setattr(self_test, "_verdicts", {})
    for kernel in tiles.KERNELS:
        _ext.set_attention_tiles(kernel, DIM, mx.float32, None)


def tiles_that_serve(device: Device) -> dict[str, tiles.Tiles]:
    """Of each kernel, in a call that is right."""
    ops.masked_attention(*PROBLEM.differentiable)  # the self-test's launches come first
    device.ran.clear()
    check_results(PROBLEM, results(PROBLEM, ops))
    return dict(device.ran)


@pytest.mark.slow
def test_the_fastest_candidate_of_each_kernel_serves_from_then_on(
    device: Device, monkeypatch: pytest.MonkeyPatch
) -> None:
    fastest = {"fwd": LARGE, "bwd_dq": SMALL, "bwd_dkv": LARGE}

    def seconds(kernel: str) -> float:
        in_force = _ext.attention_tiles(kernel, DIM, mx.float32)
        assert (kernel, in_force) in device.ran, "it was not tested"
        return float(in_force != fastest[kernel])

    assert tile_search.search(DIM, mx.float32, seconds) == fastest
    assert tiles_that_serve(device) == fastest
    restart(monkeypatch)
    assert tiles_that_serve(device) == fastest


def test_each_choice_is_settled_by_what_is_fastest(monkeypatch: pytest.MonkeyPatch) -> None:
    """Keys in threadgroup memory and fences are the faster here, and rows staged by eights."""
    best, timed = (32, 8, 1, False, True), []

    def seconds(kernel: str) -> float:
        timed.append(_ext.attention_tiles(kernel, 64, mx.float32))
        return float(sum(a != b for a, b in zip(timed[-1], best, strict=True)))

    monkeypatch.setattr(self_test, "attention_passes", lambda *_: True)
    monkeypatch.setattr(self_test, "attention_problem", lambda *_: "")
    with emulating(lambda plan: None):
        found = tile_search.search(64, mx.float32, seconds)
        candidates = _ext.attention_tile_candidates("bwd_dkv", 64, mx.float32)
        for kernel in tiles.KERNELS:
            _ext.set_attention_tiles(kernel, 64, mx.float32, None)
    assert best in candidates
    assert found["bwd_dkv"] == best
    assert found["fwd"] == (32, 8, 1, True, True), "forward has no such choice of keys"
    assert len(timed) <= 3 * 12, "each kernel: nine pairs of rows, and the other of each choice"


@pytest.mark.slow
def test_tiles_that_are_wrong_here_are_not_timed(
    device: Device, caplog: pytest.LogCaptureFixture
) -> None:
    device.broken = LARGE
    with caplog.at_level(logging.WARNING, logger="mlx_esm_kernels"):
        found = tile_search.search(DIM, mx.float32, lambda kernel: 1.0)
    assert found["fwd"] == SMALL
    assert f"fwd, D=16: tiles {LARGE} are left out, as o of the packed case" in caplog.text


def test_where_no_candidate_is_right_the_table_serves(
    device: Device, monkeypatch: pytest.MonkeyPatch
) -> None:
    built_in = {k: _ext.attention_tiles(k, DIM, mx.float32) for k in tiles.KERNELS}
    problems = iter([*["wrong"] * len(CANDIDATES), *[""] * len(CANDIDATES) * 2])
    monkeypatch.setattr(self_test, "attention_problem", lambda *_: next(problems))
    found = tile_search.search(DIM, mx.float32, lambda kernel: 1.0)
    assert set(found) == {"bwd_dq", "bwd_dkv"}
    assert _ext.attention_tiles("fwd", DIM, mx.float32) == built_in["fwd"]


@pytest.mark.slow
def test_the_benchmark_times_every_candidate_on_a_gpu(
    device: Device, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = bench.tune((1, 1, 24, DIM), mx.float32, 1)
    assert set(found) == set(tiles.KERNELS)
    assert {(kernel, found) for kernel in tiles.KERNELS for found in CANDIDATES} <= set(device.ran)
    restart(monkeypatch)
    assert tiles_that_serve(device) == found
