"""Kernels that are wrong on the device at hand, here the emulated one: MLX's numbers come out."""

from __future__ import annotations

import importlib.metadata
import os
import platform
import re
import subprocess
import sys
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import mlx.core as mx
import pytest
from metal_emulator import Emulator, emulating
from problems import AttentionProblem, EmbeddingProblem, Problem, check_results, results
from rotary_problem import RotaryProblem

from mlx_esm_kernels import _ext, ops
from mlx_esm_kernels.ops import device_cache, dispatch, self_test
from mlx_esm_kernels.ops.self_test import KernelWarning

FWD, DQ, DKV = "masked_attention_fwd", "masked_attention_bwd_dq", "masked_attention_bwd_dkv"
BIAS, ROWS = "masked_attention_bwd_bias", "positional_embedding_fwd"
TOKENS, POSITIONS = "positional_embedding_bwd_tokens", "positional_embedding_bwd_positions"

# What a device does to a kernel of ours: kernel, what the source has, what it has instead, and what
# the report says of it.
FAULTS: dict[str, tuple[str, str, str, str]] = {
    "a wrong number": (
        FWD,
        "x[m].sum[f] / total",
        "x[m].sum[f]",
        "o of the packed case: largest error",
    ),
    "a wrong dq": (DQ, "x[m].dq[f] * p.scale", "x[m].dq[f]", "dq of the packed case"),
    "a wrong dk": (DKV, "dweight - delta", "dweight + delta", "dk of the packed case"),
    "a wrong bias gradient": (
        BIAS,
        "sum += at",
        "sum -= at",
        "dbias_k of the packed extra key case",
    ),
    "wrong without vectors": (
        FWD,
        "from[2 * stride]",
        "from[stride]",
        "of the packed strided case",
    ),
    "wrong without segments": (DKV, "return 1l;", "return 0l;", "of the dense case"),
    "NaN": (FWD, "x[m].sum[f] / total", "x[m].sum[f] / 0.0f", "NaN or infinity"),
    "padding that is not zero": (FWD, "id != 0l ? x", "id != 7l ? x", "(NaN|exactly 0)"),
    "no compilation": (DKV, "float2 dk[", "no_such_type dk[", "does not compile"),
    "a crash": (DQ, "l < p.L && column == 0", "column == 0", "raised RuntimeError"),
    "wrong rows": (ROWS, "lookup.factor * load", "load", "x of the packed dropout case"),
    "wrong token gradients": (TOKENS, "to[0] = sum[m].x", "to[0] = sum[m].y", "dtoken_table"),
    "odd rows alone": (
        ROWS,
        "column + i) * stride",
        "column) * stride",
        "x of the packed odd case",
    ),
    "turned the wrong way": (
        "rotary_turn",
        "first * cosine - second",
        "first * cosine + second",
        "y of the whole case: largest error",
    ),
    "no positions": (POSITIONS, "found &= found - 1u;", "found = 0u;", "dposition_table"),
}
PROBLEMS: dict[str, Problem] = {
    "masked_attention": AttentionProblem((1, 2, 40, 16), segments="runs", biases=True),
    "positional_embedding": EmbeddingProblem((2, 40, 16), segments="runs", mask_idx=32),
    "rotary": RotaryProblem((2, 3, 40, 16)),
}


class Device:
    """The emulated GPU, its memory of verdicts, and a fault that may be planted in its kernels."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.launches: list[str] = []
        self.fault: tuple[str, str, str] | None = None
        self._monkeypatch = monkeypatch
        self._emulator = Emulator(orders=(0,))
        self.restart()

    def restart(self) -> None:
        """A new process on the same machine: the cache folder stays."""
        self.launches.clear()
        self._monkeypatch.setattr(self_test, "_verdicts", {})

    def execute(self, plan: list[dict[str, Any]]) -> None:
        for launch in plan:
            self.launches.append(launch["kernel"])
            if self.fault and launch["kernel"] == self.fault[0]:
                _, there, instead = self.fault
                assert there in launch["source"], "the kernel has changed: plant the fault anew"
                launch["source"] = launch["source"].replace(there, instead)
        self._emulator.execute(plan)


@pytest.fixture
def device(monkeypatch: pytest.MonkeyPatch) -> Iterator[Device]:
    monkeypatch.setattr(dispatch, "_default_choice", "auto")
    monkeypatch.setattr(self_test, "_mode", "auto")
    found = Device(monkeypatch)
    with emulating(found.execute):
        yield found


def op_of(kernel: str) -> str:
    return next(op for op in PROBLEMS if kernel.startswith(op))


@pytest.mark.parametrize("op", PROBLEMS)
def test_right_kernels_pass_once_and_serve(op: str, device: Device) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        check_results(PROBLEMS[op], results(PROBLEMS[op], ops))
        tested = len(device.launches)
        device.launches.clear()
        results(PROBLEMS[op], ops)
    assert 0 < len(device.launches) < tested / 2


@pytest.mark.parametrize("name", FAULTS)
def test_a_wrong_kernel_is_reported_once_and_gives_mlx_numbers(
    name: str, device: Device, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MLX_ESM_KERNELS_CACHE", str(tmp_path))
    kernel, there, instead, said = FAULTS[name]
    device.fault = (kernel, there, instead)
    problem = PROBLEMS[op_of(kernel)]
    with pytest.warns(KernelWarning, match="not right on this machine") as caught:
        found = results(problem, ops)
    check_results(problem, found)
    for key, expected in results(problem, ops, kernels="mlx").items():
        assert mx.array_equal(found[key], expected), key
    assert len(caught) == 1
    (report,) = tmp_path.glob("self_test/report-*.txt")
    assert str(report) in str(caught[0].message)
    assert "chip: Emulated GPU" in report.read_text()
    assert re.search(said, report.read_text())
    assert "\n" not in str(caught[0].message)

    device.launches.clear()
    results(problem, ops)
    assert device.launches == []


@pytest.mark.parametrize("right", [True, False])
def test_a_later_process_on_the_same_machine_tests_nothing(right: bool, device: Device) -> None:
    problem = PROBLEMS["positional_embedding"]
    device.fault = None if right else FAULTS["wrong rows"][:3]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", KernelWarning)
        results(problem, ops)
        device.restart()
        check_results(problem, results(problem, ops))
    plans = 2  # forward and backward
    assert device.launches.count("positional_embedding_places") == (plans if right else 0)


ENDED_BY_A_KERNEL = """
import os
import mlx.core as mx
from mlx_esm_kernels import _ext, ops
_ext.emulate_metal(lambda plan: os._exit(9))
mx.eval(ops.masked_attention(*[mx.ones((1, 1, 4, 16))] * 3))
"""


def test_a_kernel_that_ended_a_process_is_not_tried_again(device: Device) -> None:
    ended = subprocess.run(
        [sys.executable, "-c", ENDED_BY_A_KERNEL],
        env=os.environ | {"MLX_ESM_KERNELS_SELF_TEST": "auto"},
        check=False,
    )
    assert ended.returncode == 9
    problem = PROBLEMS["masked_attention"]
    with pytest.warns(KernelWarning, match="a process ended while it tested this kernel"):
        check_results(problem, results(problem, ops))
    assert device.launches == []


def test_another_process_that_tests_now_is_no_bad_sign(
    device: Device, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(device_cache, "read", lambda kind, key: {"tester": os.getppid()})
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        results(PROBLEMS["masked_attention"], ops)
    assert FWD in device.launches


def test_an_interrupted_test_is_made_again(device: Device, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(*_: Any) -> str:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(self_test, "_compare", interrupted)
        with pytest.raises(KeyboardInterrupt):
            results(PROBLEMS["masked_attention"], ops)
    device.restart()
    monkeypatch.setattr(self_test, "_is_running", lambda pid: False)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        results(PROBLEMS["masked_attention"], ops)
    assert FWD in device.launches


Change = Callable[[pytest.MonkeyPatch], None]


def other_system(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(platform, "platform", lambda: "macOS-15.9-arm64")


def other_version(patch: pytest.MonkeyPatch) -> None:
    version = importlib.metadata.version
    patch.setattr(
        importlib.metadata, "version", lambda name: "0.0.1" if name == "mlx" else version(name)
    )


def other_source(patch: pytest.MonkeyPatch) -> None:
    sources = _ext.embedding_sources
    patch.setattr(_ext, "embedding_sources", lambda dtype: [*sources(dtype), "// newer"])


def other_chip(patch: pytest.MonkeyPatch) -> None:
    chip = _ext.metal_chip() or {}
    patch.setattr(_ext, "metal_chip", lambda: chip | {"name": "Apple M9"})


@pytest.mark.parametrize("change", [other_system, other_version, other_source, other_chip])
def test_a_verdict_holds_for_its_chip_system_mlx_and_source_alone(
    change: Change, device: Device, monkeypatch: pytest.MonkeyPatch
) -> None:
    problem = PROBLEMS["positional_embedding"]
    device.fault = FAULTS["wrong rows"][:3]
    with pytest.warns(KernelWarning):
        results(problem, ops)
    device.restart()
    device.fault = None
    change(monkeypatch)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        check_results(problem, results(problem, ops))
    assert "positional_embedding_fwd" in device.launches
