"""The command doctor: what it checks, what it says of what fails, and that it goes on."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import mlx.core as mx
import pytest
from click.testing import CliRunner, Result
from fake_metal import FakeMetal, metal

from mlx_esm_kernels import _ext
from mlx_esm_kernels.commands import doctor
from mlx_esm_kernels.models.config import PRESETS
from mlx_esm_kernels.ops import examination, trials
from mlx_esm_kernels.ops.examination import Variant
from mlx_esm_kernels.ops.trials import Trial
from mlx_esm_kernels.system import machine

__all__ = ["metal"]
TRIALS, HEAD_DIMS = trials.trials, doctor.head_dims
KEYS = {
    "checks": "op case dtype head_dim name error limit passed seconds",
    "serves": "op dtype head_dim call ours reason",
    "compile": "op dtype head_dim seconds",
    "timings": "shape lengths segments dtype direction ours mlx",
}


@pytest.fixture(autouse=True)
def small(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """One head dim, one dtype, two short calls to time, and a folder of its own."""
    monkeypatch.setattr(doctor, "head_dims", lambda: [8])
    monkeypatch.setattr(examination, "DTYPES", (mx.float32,))
    few = [Trial((1, 1, 8, 8), "dense", None), Trial((2, 1, 8, 8), "packed", [[4, 3], [8]])]
    monkeypatch.setattr(trials, "trials", lambda on_gpu: few)
    monkeypatch.chdir(tmp_path)


@pytest.fixture
def cpu(monkeypatch: pytest.MonkeyPatch) -> None:
    """No Metal GPU, in a run of the tests whose ops are emulated as well."""
    monkeypatch.setattr(_ext, "runs_on_metal", lambda stream: False)
    monkeypatch.setattr(_ext, "metal_chip", lambda: None)


def run(*arguments: str) -> tuple[Result, dict[str, Any]]:
    result = CliRunner().invoke(doctor.command, [*arguments, "--json", "d.json"])
    return result, json.loads(Path("d.json").read_text()) if Path("d.json").exists() else {}


@pytest.mark.usefixtures("cpu")
def test_a_healthy_cpu() -> None:
    result, found = run()
    assert result.exit_code == 0, result.output
    assert found["format"] == "mlx-esm-kernels doctor 1"
    assert (found["device"], found["chip"], found["problems"]) == ("cpu", None, [])
    assert found["versions"]["mlx"] in result.output
    ops = ["masked_attention", "positional_embedding", "rotary"]
    ops += ["linear", "int8_linear", "layer_norm", "adamw"]
    assert list(dict.fromkeys(check["op"] for check in found["checks"])) == ops
    assert all(check["passed"] for check in found["checks"])
    assert all(check["error"] <= check["limit"] for check in found["checks"])
    assert {entry["ours"] for entry in found["serves"]} == {True}
    assert found["compile"] == []
    for name, keys in KEYS.items():
        assert all(set(entry) == set(keys.split()) for entry in found[name])
    assert re.search(r"\n  masked_attention, D = 8 +\d+ ok, 0\.\d\d", result.output)
    assert "all checks passed" in result.output
    assert len(result.output.splitlines()) < 40


@pytest.mark.usefixtures("cpu")
def test_calls_are_timed_in_both_directions_and_not_when_it_is_to_be_quick() -> None:
    result, found = run()
    rows = [(row["lengths"], row["segments"], row["direction"]) for row in found["timings"]]
    both = ("forward", "forward+backward")
    assert rows == [
        *(("dense", None, direction) for direction in both),
        *(("packed", [[4, 3], [8]], direction) for direction in both),
    ]
    assert min(row[side] for row in found["timings"] for side in ("ours", "mlx")) > 0
    assert re.search(r"2 x 1 x 8 x 8 +packed +forward\+backward +[\d.]+ ms", result.output)
    quick, found = run("--quick")
    assert found["timings"] == []
    assert "MLX / ours" not in quick.output


@pytest.mark.usefixtures("cpu")
def test_an_op_that_is_wrong_is_a_failed_check_and_the_exit_code_1(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    right = _ext.layer_norm
    monkeypatch.setattr(_ext, "layer_norm", lambda *x, **o: right(*x, **o) * 1.001)
    result, found = run("--quick")
    assert result.exit_code == 1
    failed = [check for check in found["checks"] if not check["passed"]]
    assert {check["op"] for check in failed} == {"layer_norm"}
    assert all(check["error"] > check["limit"] for check in failed)
    assert re.search(r"\n  layer_norm +\d of 8 FAILED", result.output)
    assert re.search(r"\n  layer_norm, float32: y of the centred case: largest err", result.output)
    assert "not all checks passed" in result.output


INT8_FAULTS: dict[str, Callable[[mx.array], mx.array]] = {
    "another scale of an output": lambda y: mx.where(mx.arange(101) == 100, y * 1.01, y),
    "a step of bfloat16": lambda y: y.astype(mx.bfloat16).astype(y.dtype),
    "saturated sums": lambda y: mx.where(mx.isnan(y), y, mx.clip(y, -16, 16)),
    "a number where NaN must be": lambda y: mx.where(mx.isnan(y), 0, y),
    "a neighbour's NaN": lambda y: mx.where(mx.isnan(mx.roll(y, 1, axis=-2)), mx.nan, y),
}


@pytest.mark.usefixtures("cpu")
@pytest.mark.parametrize("fault", INT8_FAULTS)
def test_a_wrong_int8_product_is_found(fault: str, monkeypatch: pytest.MonkeyPatch) -> None:
    right, change = _ext.int8_linear, INT8_FAULTS[fault]
    monkeypatch.setattr(_ext, "int8_linear", lambda *x, **o: change(right(*x, **o)))
    (variant,) = [variant for variant in examination.variants([]) if variant.op == "int8_linear"]
    assert any(finding.problem for finding, _ in examination.examine(variant))


@pytest.mark.parametrize("dtype", [mx.float32, mx.float16, mx.bfloat16], ids=str)
def test_a_right_int8_product_passes_in_its_dtype(
    dtype: mx.Dtype, monkeypatch: pytest.MonkeyPatch
) -> None:
    given: list[mx.Dtype] = []
    right = _ext.int8_linear

    def seen(x: mx.array, *others: mx.array, **options: Any) -> mx.array:
        given.append(x.dtype)
        return right(x, *others, **options)

    monkeypatch.setattr(_ext, "int8_linear", seen)
    found = list(examination.examine(Variant("int8_linear", dtype)))
    assert [finding.problem for finding, _ in found] == [""] * len(given)
    assert set(given) == {dtype}


@pytest.mark.usefixtures("cpu")
def test_what_raises_is_a_line_and_the_rest_goes_on(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: Any, **__: Any) -> Any:
        raise RuntimeError("no such luck")

    monkeypatch.setattr(_ext, "masked_attention", broken)
    monkeypatch.setattr(machine, "versions", broken)
    result, found = run()
    assert (result.exit_code, result.exception.__class__) == (1, SystemExit)
    assert "masked_attention, float32, D = 8: it raised RuntimeError: no such luck" in result.output
    assert found["problems"][0] == "versions: it raised RuntimeError: no such luck"
    assert any(problem.startswith("timing dense (1, 1, 8, 8)") for problem in found["problems"])
    unmade = [check for check in found["checks"] if check["op"] == "masked_attention"]
    assert [(check["error"], check["passed"]) for check in unmade] == [(None, False)]
    assert all(check["passed"] for check in found["checks"] if check["op"] == "linear")


@pytest.mark.usefixtures("cpu")
def test_trouble_that_is_no_check_is_a_line_and_no_failure(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(machine, "system_name", lambda: 1 // 0)
    result, found = run("--quick")
    assert (result.exit_code, found["system"]) == (0, "unknown")
    assert "\n  system: it raised ZeroDivisionError" in result.output


def test_on_a_gpu_it_says_what_serves_and_why(metal: FakeMetal) -> None:
    result, found = run("--quick")
    assert result.exit_code == 0, result.output
    assert found["device"] == "metal"
    assert found["chip"]["name"] == "Apple M1"
    assert found["chip"]["memory_gb"] > 0
    served = {(entry["op"], entry["ours"]) for entry in found["serves"]}
    assert ("masked_attention", True) in served
    assert ("linear", False) in served
    assert "ours: our kernel passed its self-test" in result.output
    assert {check["op"] for check in found["checks"]} == {
        "masked_attention",
        "positional_embedding",
        "rotary",
    }
    assert "outside" in {check["case"] for check in found["checks"]}
    assert len(found["compile"]) == 3


def test_a_wrong_kernel_does_not_serve(metal: FakeMetal) -> None:
    metal.change = lambda x: x * 1.01
    result, found = run("--quick")
    assert result.exit_code == 1
    assert not any(entry["ours"] for entry in found["serves"])
    assert "MLX: our kernel failed its self-test" in result.output


@pytest.mark.slow
def test_emulated_kernels_are_checked_and_not_timed() -> None:
    from metal_emulator import Emulator, emulating

    with emulating(Emulator(orders=(0,)).execute):
        result, found = run()
    assert result.exit_code == 0, result.output
    assert (found["device"], found["timings"]) == ("metal-emulator", [])
    assert "no time means anything" in result.output


@pytest.mark.parametrize(
    ("path", "sentence"),
    [("no/d.json", "there is no folder no"), (".", "is a directory")],
)
def test_a_file_that_cannot_be_written_is_a_sentence_before_the_work(
    path: str, sentence: str
) -> None:
    result = CliRunner().invoke(doctor.command, ["--json", path])
    assert result.exit_code != 0
    assert sentence in result.output
    assert "versions" not in result.output


def test_the_head_dims_are_those_of_all_presets() -> None:
    assert sorted({config.head_dim for config in PRESETS.values()}) == HEAD_DIMS()
    assert 64 in HEAD_DIMS()


@pytest.mark.parametrize("on_gpu", [True, False])
def test_the_trials_are_of_every_kind_and_fill_no_row_beyond_its_end(on_gpu: bool) -> None:
    found = TRIALS(on_gpu)
    assert {trial.lengths for trial in found} == {"dense", "padded", "packed"}
    assert {trial.shape[3] for trial in found} == {16, 32, 64}
    for trial in found:
        batch, _, length, _ = trial.shape
        if trial.segments is not None:
            assert len(trial.segments) == batch
            assert all(0 < sum(row) <= length for row in trial.segments)
            assert all(len(row) == 1 for row in trial.segments) == (trial.lengths == "padded")
