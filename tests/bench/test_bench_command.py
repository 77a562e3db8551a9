"""The flags that all benchmarks share: what they refuse, and the capture of a GPU run."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import attention
import click
import embed
import mlx.core as mx
import positional_embedding
import pytest
import train_step
from click.testing import CliRunner
from harness import command

BENCHMARKS = pytest.mark.parametrize("bench", [attention, positional_embedding, train_step, embed])


@BENCHMARKS
@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--shapes", "1x2"], "with commas between; got '1x2'"),
        (["--shapes", "1x2x3x0"], "--shapes expects"),
        (["--against", "jax"], "got jax"),
        (["--capture", "a.gputrace"], "--capture needs a Metal GPU"),
        (["--fasta", "nowhere.fasta"], "nowhere.fasta"),
    ],
)
def test_it_refuses_plainly(bench: Any, arguments: list[str], said: str) -> None:
    done = CliRunner().invoke(bench.main, arguments)
    assert done.exit_code not in (0, None)
    assert said in done.output
    assert "Traceback" not in done.output


@BENCHMARKS
def test_a_gpu_that_is_not_there_is_refused(bench: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(mx, "is_available", lambda device: device == mx.cpu)
    done = CliRunner().invoke(bench.main, ["--device", "gpu"])
    assert done.exit_code != 0
    assert "has no GPU here" in done.output


def test_a_quick_run_is_one_turn_of_the_first_shape() -> None:
    given: list[command.Options] = []

    @click.command()
    @command.benchmark_options(shapes="1x2,3x4", sizes="BxL", ways=("mlx",), against="mlx")
    def main(options: command.Options) -> None:
        given.append(options)

    for arguments in (["--quick"], ["--quick", "--shapes", "5x6,7x8", "--repeats", "9"], []):
        assert CliRunner().invoke(main, arguments).exit_code == 0
    assert [options.shapes for options in given] == [[(1, 2)], [(5, 6)], [(1, 2), (3, 4)]]
    assert [options.repeats for options in given] == [1, 1, 5]


def test_a_side_that_is_not_installed_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(command, "installed", lambda package: package != "esm")
    with pytest.raises(click.BadParameter, match="fair-esm needs esm, which is not installed"):
        command.parse_against("fair-esm", ("fair-esm", "torch"), "cpu", "float32")
    assert command.parse_against("torch", ("fair-esm", "torch"), "cpu", "float32") == ["torch"]
    assert command.parse_against("none", ("torch",), "cpu", "float32") == []
    with pytest.raises(click.BadParameter, match="is for --device cpu"):
        command.parse_against("torch", ("torch",), "gpu", "float32")


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_fair_esm_is_for_float32(dtype: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(command, "installed", lambda package: True)
    with pytest.raises(click.BadParameter, match="is for --dtype float32"):
        command.parse_against("fair-esm", ("fair-esm",), "cpu", dtype)
    assert command.parse_against("fair-esm", ("fair-esm",), "cpu", "float32") == ["fair-esm"]


@pytest.fixture
def metal(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Metal is there; the calls to its capture."""
    calls: list[str] = []
    monkeypatch.setattr(mx.metal, "is_available", lambda: True)
    monkeypatch.setattr(mx.metal, "start_capture", lambda path: calls.append(f"start {path}"))
    monkeypatch.setattr(mx.metal, "stop_capture", lambda: calls.append("stop"))
    monkeypatch.setenv("MTL_CAPTURE_ENABLED", "1")
    return calls


def test_a_capture_begins_and_ends_around_a_run(metal: list[str], tmp_path: Path) -> None:
    path = tmp_path / "a.gputrace"
    command.check_capture(path, "gpu")
    with command.capturing(path):
        metal.append("run")
    assert metal == [f"start {path}", "run", "stop"]


def test_a_capture_ends_where_the_run_fails(metal: list[str], tmp_path: Path) -> None:
    with pytest.raises(ZeroDivisionError), command.capturing(tmp_path / "a.gputrace"):
        raise ZeroDivisionError
    assert metal[-1] == "stop"


@pytest.mark.usefixtures("metal")
def test_a_capture_that_metal_would_refuse_is_refused_first(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    there = tmp_path / "there.gputrace"
    there.mkdir()
    with pytest.raises(click.ClickException, match="exists"):
        command.check_capture(there, "gpu")
    with pytest.raises(click.ClickException, match=r"\.gputrace"):
        command.check_capture(tmp_path / "trace", "gpu")
    monkeypatch.delenv("MTL_CAPTURE_ENABLED")
    with pytest.raises(click.ClickException, match="MTL_CAPTURE_ENABLED=1"):
        command.check_capture(tmp_path / "new.gputrace", "gpu")
