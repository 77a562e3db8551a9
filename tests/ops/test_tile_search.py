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
CANDIDATES = [(16, 8), (64, 32)]
PROBLEM = AttentionProblem((1, 2, 40, DIM), segments="runs")


class Device:
    """The emulated GPU; `ran` holds kernel and tiles of every launch over rows."""

    def __init__(self) -> None:
        self.ran: list[tuple[str, tuple[int, int]]] = []
        self.broken: tuple[int, int] | None = None  # tiles with which kernels are wrong
        self._emulator = Emulator(orders=(0,))

    def execute(self, plan: list[dict[str, Any]]) -> None:
        for launch in plan:
            found = re.search(r"#define ROWS (\d+)\n#define TILE (\d+)\n", launch["source"])
            if found:
                pair = (int(found[1]), int(found[2]))
                self.ran.append((launch["kernel"].removeprefix("masked_attention_"), pair))
                if pair == self.broken:
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


def tiles_that_serve(device: Device) -> dict[str, tuple[int, int]]:
    """Of each kernel, in a call that is right."""
    ops.masked_attention(*PROBLEM.differentiable)  # the self-test's launches come first
    device.ran.clear()
    check_results(PROBLEM, results(PROBLEM, ops))
    return dict(device.ran)


def test_the_fastest_candidate_of_each_kernel_serves_from_then_on(
    device: Device, monkeypatch: pytest.MonkeyPatch
) -> None:
    fastest = {"fwd": (64, 32), "bwd_dq": (16, 8), "bwd_dkv": (64, 32)}

    def seconds(kernel: str) -> float:
        pair = _ext.attention_tiles(kernel, DIM, mx.float32)
        assert (kernel, pair) in device.ran, "it was not tested"
        return float(pair != fastest[kernel])

    assert tile_search.search(DIM, mx.float32, seconds) == fastest
    assert tiles_that_serve(device) == fastest
    restart(monkeypatch)
    assert tiles_that_serve(device) == fastest


@pytest.mark.slow
def test_tiles_that_are_wrong_here_are_not_timed(
    device: Device, caplog: pytest.LogCaptureFixture
) -> None:
    device.broken = (64, 32)
    with caplog.at_level(logging.WARNING, logger="mlx_esm_kernels"):
        found = tile_search.search(DIM, mx.float32, lambda kernel: 1.0)
    assert found["fwd"] == (16, 8)
    assert "fwd, D=16: tiles (64, 32) are left out, as o of the packed case" in caplog.text


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
    assert {(kernel, pair) for kernel in tiles.KERNELS for pair in CANDIDATES} <= set(device.ran)
    restart(monkeypatch)
    assert tiles_that_serve(device) == found
