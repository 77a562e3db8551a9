"""A whole test run on the emulated GPU: it stays there, or the run is red."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

TESTS = Path(__file__).parents[1]

HEAD = """
import mlx.core as mx
from mlx_esm_kernels import _ext

def run_op():
    mx.eval(_ext.masked_attention(*[mx.ones((1, 1, 8, 8))] * 3))
"""
USES_THE_FIXTURE = """
def test_with_an_emulator_of_its_own(emulator):
    run_op()
    assert emulator.counts
"""
IS_STILL_EMULATED = """
def test_after_it():
    assert _ext.runs_on_metal(mx.cpu)
    run_op()
"""
ENDS_THE_EMULATION = """
def test_that_ends_it():
    _ext.emulate_metal(None)
"""
WITHOUT_AN_EMULATOR = """
def test_that_needs_none(write):
    assert write(b"x").exists()
"""


def run_pytest(folder: Path, *tests: str, device: str, before: str = "pass") -> tuple[int, str]:
    """Exit code and output of a run of these tests, in this order, under tests/conftest.py."""
    file = folder / "test_these.py"
    file.write_text(HEAD + "".join(tests))
    arguments = ["-p", "conftest", "-p", "no:cacheprovider", str(file)]
    settings = ["-c", str(TESTS.parent / "pyproject.toml"), "--rootdir", str(folder)]
    code = f"import sys; {before}; import pytest; sys.exit(pytest.main(sys.argv[1:]))"
    done = subprocess.run(
        [sys.executable, "-c", code, *settings, *arguments],
        env=os.environ | {"MLX_ESM_KERNELS_DEVICE": device, "PYTHONPATH": str(TESTS)},
        cwd=folder,
        capture_output=True,
        text=True,
        check=False,
    )
    return done.returncode, done.stdout + done.stderr


def test_a_test_with_its_own_emulator_gives_the_run_back_to_its_own(tmp_path: Path) -> None:
    code, said = run_pytest(tmp_path, USES_THE_FIXTURE, IS_STILL_EMULATED, device="metal-emulator")
    assert code == 0, said
    assert "metal-emulator: all op calls of 2 tests stayed there; launch plans" in said
    assert "own emulators: 1\n" in said, "the second test's op, and no other"


@pytest.mark.slow
def test_a_test_that_ends_the_emulation_is_red_and_those_after_it_are_emulated(
    tmp_path: Path,
) -> None:
    tests = (ENDS_THE_EMULATION, IS_STILL_EMULATED)
    code, said = run_pytest(tmp_path, *tests, device="metal-emulator")
    assert code == pytest.ExitCode.TESTS_FAILED, said
    assert "test_these.py::test_that_ends_it ended the emulation of the whole run." in said
    assert "metal-emulator: left by test_these.py::test_that_ends_it; launch plans" in said
    assert "2 passed, 1 error" in said


@pytest.mark.slow
def test_a_run_on_another_device_is_refused(tmp_path: Path) -> None:
    code, said = run_pytest(tmp_path, WITHOUT_AN_EMULATOR, device="tpu")
    assert code == pytest.ExitCode.USAGE_ERROR, said
    assert "MLX_ESM_KERNELS_DEVICE must be cpu or metal-emulator; got tpu." in said


@pytest.mark.slow
def test_tests_that_use_no_emulator_need_no_compiler_of_it(tmp_path: Path) -> None:
    gone = "sys.modules['ziglang'] = None"
    code, said = run_pytest(tmp_path, WITHOUT_AN_EMULATOR, device="cpu", before=gone)
    assert code == 0, said
    code, said = run_pytest(tmp_path, USES_THE_FIXTURE, device="cpu", before=gone)
    assert code == pytest.ExitCode.TESTS_FAILED, said
    assert "import of ziglang halted" in said
