"""The report: it fills in every line, judges rightly, says what it skipped, and adds up pieces."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import report
from click.testing import CliRunner, Result
from harness import command, measuring
from report_parts import PARTS, lines
from report_parts.lines import Line, Part

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
            assert line["values"] or "torch is not installed" in line["note"]
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
