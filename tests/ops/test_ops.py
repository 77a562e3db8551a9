"""Importing the compiled ops: what is checked before the extension is touched."""

from __future__ import annotations

import importlib.metadata
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from mlx_esm_kernels import ops
from mlx_esm_kernels.ops import extension

PYPROJECT = Path(__file__).parents[2] / "pyproject.toml"


def test_another_mlx_gives_a_sentence_that_says_what_to_do(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(importlib.metadata, "version", lambda name: "0.31.0")
    with pytest.raises(ImportError, match=r"compiled for mlx 0\.32\.4, but mlx 0\.31\.0 is.*pip"):
        extension._check_mlx()


def test_the_version_that_is_checked_is_the_one_that_is_pinned() -> None:
    pins = [line for line in PYPROJECT.read_text().splitlines() if "mlx" in line and "==0" in line]
    assert len(pins) == 4
    assert all(f"=={ops.MLX_VERSION};" in pin for pin in pins)


def test_the_ops_need_nothing_imported_before_them() -> None:
    code = "from mlx_esm_kernels import _ext, ops; print(ops.linear is not None)"
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert run.stdout == "True\n", run.stderr


@pytest.mark.parametrize(
    ("variable", "value", "expected"),
    [
        ("MLX_ESM_KERNELS_NUM_THREADS", "none", "must be a whole number from 1 to 1024; got none."),
        ("MLX_ESM_KERNELS_CPU_TARGET", "sse9", "got sse9."),
    ],
)
def test_a_bad_switch_is_refused_by_name(
    monkeypatch: pytest.MonkeyPatch, variable: str, value: str, expected: str
) -> None:
    monkeypatch.setenv(variable, value)
    code = "import mlx_esm_kernels"
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    last = run.stderr.strip().splitlines()[-1]
    assert last.startswith(f"ValueError: [cpu] {variable} must be")
    assert last.endswith(expected)


def test_a_source_tree_that_was_not_built_says_what_to_type(tmp_path: Path) -> None:
    tree = tmp_path / "mlx_esm_kernels"
    shutil.copytree(
        Path(extension.__file__).parents[1], tree, ignore=shutil.ignore_patterns("_ext*.so")
    )
    # As where a wheel is installed and Python is started in a checkout: no finder of an editable
    # installation comes before the folder.
    code = f"import sys; sys.meta_path = sys.meta_path[-3:]; sys.path.insert(0, {str(tmp_path)!r})"
    code += "\nimport mlx_esm_kernels"
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    last = run.stderr.strip().splitlines()[-1]
    assert last.startswith(f"ImportError: {tree} has no compiled ops")
    assert f"Run `pip install -e .` in {tmp_path}" in last
