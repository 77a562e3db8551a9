"""The report: it fills in every line, judges rightly, says what it skipped, and adds up pieces."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import click
import mlx.core as mx
import pytest
import report
from click.testing import CliRunner, Result
from harness import command, measuring
from report_parts import PARTS, lines, low
from report_parts.lines import Line, Part, Setting

from mlx_esm_kernels import ops
from mlx_esm_kernels.data.proteins import Proteins

SKIPPED = ["not measured: torch is not installed", "not measured: esm-cpp needs --esm-cpp PYTHON"]

pytestmark = pytest.mark.usefixtures("quick_turns")


@pytest.fixture
def without_torch(monkeypatch: pytest.MonkeyPatch) -> None:
    for module in (measuring, command, lines):
        monkeypatch.setattr(module, "installed", lambda package: False)


def run(folder: Path, *arguments: str) -> Result:
    return CliRunner().invoke(report.main, ["--quick", "--out", str(folder), *arguments])


@pytest.mark.slow
@pytest.mark.usefixtures("without_torch")
def test_every_part_gives_lines_and_what_is_skipped_is_said(tmp_path: Path) -> None:
    done = run(tmp_path)
    assert done.exit_code == 0, done.output
    text = (tmp_path / "report.md").read_text()
    content = json.loads((tmp_path / "report.json").read_text())
    assert list(content["parts"]) == list(PARTS)
    for part in content["parts"].values():
        assert part["lines"]
        for line in part["lines"]:
            assert line["values"] or line["note"] in SKIPPED
            assert f"| {line['work']} | {line['against']} |" in text
    assert "A smoke run" in text
    assert measuring.machine_in_words(content["about"]) in text
    assert (tmp_path / "report.png").stat().st_size > 0
    assert "GEMM rate" in text
    assert "stock MLX | at least 60x" in text


def test_with_torch_its_lines_are_filled_in(tmp_path: Path) -> None:
    pytest.importorskip("torch")
    done = run(tmp_path, "--only", "narrow", "--only", "train-small")
    assert done.exit_code == 0, done.output
    content = json.loads((tmp_path / "report.json").read_text())
    for line in content["parts"]["narrow"]["lines"]:
        assert line["values"]
    assert content["parts"]["train-small"]["lines"][1]["values"]


def test_with_transformers_the_lines_of_embeddings_are_filled_in(tmp_path: Path) -> None:
    for package in ("torch", "esm", "transformers"):
        pytest.importorskip(package)
    done = run(tmp_path, "--only", "embed")
    assert done.exit_code == 0, done.output
    content = json.loads((tmp_path / "report.json").read_text())
    for line in content["parts"]["embed"]["lines"]:
        assert line["values"]
    assert "| embedding (1, 16, 32, 2), lengths as of" in (tmp_path / "report.md").read_text()


@pytest.mark.usefixtures("without_torch")
def test_lower_precision_is_measured_beside_what_is_there(tmp_path: Path) -> None:
    chosen = ("linear-bfloat16", "train-bfloat16", "embed-low")
    done = run(tmp_path, *(word for part in chosen for word in ("--only", part)))
    assert done.exit_code == 0, done.output
    parts = json.loads((tmp_path / "report.json").read_text())["parts"]
    assert list(parts) == list(chosen)
    targets = {name: [line["target"] for line in part["lines"]] for name, part in parts.items()}
    assert targets["train-bfloat16"] == [1.5]
    assert targets["embed-low"] == [1.7, 1.5, 3.0, 3.0, 1.3]
    lines = [line for part in parts.values() for line in part["lines"]]
    measured = {
        (line["work"].split(", residues")[0], line["against"]) for line in lines if line["values"]
    }
    assert measured == {
        ("linear forward, bfloat16", "our float32"),
        ("linear forward+backward, bfloat16", "our float32"),
        ("training step, bfloat16", "our float32"),
        ("embedding, bfloat16, ESM-2", "our float32"),
        ("embedding, int8 weights, ESM-2", "our bfloat16"),
    }
    assert {line["note"] for line in lines if not line["values"]} == set(SKIPPED)
    assert not any(line["limits"] for line in lines)  # the GEMM rate is float32's
    assert list(lines[0]["values"]) == ["(40, 16, 32) GELU", "(40, 32, 16)"]


@pytest.mark.slow
def test_with_its_interpreter_esm_cpp_is_measured(tmp_path: Path, esm_cpp_python: str) -> None:
    for package in ("torch", "transformers"):
        pytest.importorskip(package)
    done = run(tmp_path, "--only", "embed-low", "--esm-cpp", esm_cpp_python)
    assert done.exit_code == 0, done.output
    part = json.loads((tmp_path / "report.json").read_text())["parts"]["embed-low"]
    assert all(line["values"] for line in part["lines"])
    assert "int8 of esm-cpp 9, none" in [line["against"] for line in part["lines"]]
    ways = ["ours", "ours-bfloat16", "ours-int8", "esm-cpp-int8"]
    ways += ["transformers", "transformers-bfloat16"]
    assert [row["way"] for row in part["timings"]] == ways


@pytest.mark.parametrize(("cpu", "target"), [("avx512_bf16", 1.8), ("avx512_amx", 4.0)])
def test_a_processor_that_multiplies_tiles_has_a_higher_target(
    cpu: str, target: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ops, "cpu_target", lambda: cpu)
    found = low.linear_bfloat16(Setting(Proteins.from_sequences(["A"]), "w", None, True, 1, 0.01))
    assert [line.target for line in found.lines] == [target] * 2


@pytest.mark.parametrize("result", range(4))
def test_a_bfloat16_product_with_other_gradients_is_not_timed(
    result: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    right = low.both_pass

    def spoilt(arrays: list[mx.array], gelu: bool) -> Callable[[], list[mx.array]]:
        run = right(arrays, gelu)
        factor = [1.1 if i == result and arrays[0].dtype == mx.bfloat16 else 1 for i in range(4)]
        return lambda: [x * f for x, f in zip(run(), factor, strict=True)]

    low.both_runs((40, 16, 32))
    monkeypatch.setattr(low, "both_pass", spoilt)
    with pytest.raises(click.ClickException, match="bfloat16 does not give our numbers"):
        low.both_runs((40, 16, 32))


def test_a_ratio_is_of_residues_a_second() -> None:
    rows = [{"way": way, "residues_per_s": rate} for way, rate in (("a", 4.0), ("b", 6.0))]
    assert low.residues_over(rows, "b") == {"a": 1.5}


@pytest.mark.usefixtures("without_torch")
def test_pieces_add_up_but_not_those_of_another_machine(tmp_path: Path) -> None:
    for part in ("memory", "half"):
        assert run(tmp_path, "--only", part).exit_code == 0
    content = json.loads((tmp_path / "report.json").read_text())
    assert list(content["parts"]) == ["half", "memory"]
    content["about"]["instruction_set"] = "another"
    (tmp_path / "report.json").write_text(json.dumps(content))
    done = run(tmp_path, "--only", "memory")
    assert done.exit_code != 0
    assert "figures of another machine" in done.output


@pytest.mark.parametrize(
    ("line", "met", "said"),
    [
        (Line("w", "a", 2.0, values={"s": 2.5, "t": 2.0}), True, "met"),
        (Line("w", "a", 2.0, values={"s": 2.5, "t": 1.5}), False, "**short**, 0.75 of it"),
        (
            Line("w", "a", 2.0, values={"s": 2.5, "t": 1.5}, limits={"s": 9.0, "t": 1.8}),
            False,
            "**short**, 0.75 of it; GEMM rate: 1.80x",
        ),
        (Line("w", "a", 1.0, "%", True, {"s": 0.5}), True, "met"),
        (Line("w", "a", 1.0, "%", True, {"s": 0.5, "t": 2.0}), False, "**short**, 2.00 of it"),
        (Line("w", "a", 1.0, note="not measured: torch is not installed"), None, "not measured"),
    ],
)
def test_the_worst_shape_decides(line: Line, met: bool | None, said: str) -> None:
    assert line.met is met
    assert report.verdict(line).startswith(said)


def test_what_stayed_disturbed_is_named_once() -> None:
    calm = {"work": "calm", "disturbed": False}
    loud = {"work": "loud", "disturbed": True}
    said = report.disturbed_works({"p": Part([], [calm, loud, loud])})
    assert said.count("loud") == 1
    assert "calm" not in said
    assert report.disturbed_works({"p": Part([], [calm])}) == ""
