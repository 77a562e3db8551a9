"""A run's folder: one writer, and nothing in it is lost."""

import os
import signal
import subprocess
import sys

import pytest

from mlx_esm_kernels.training.run_folder import RunFolderError, open_run_folder

DIES = """
import os, signal
from pathlib import Path
from mlx_esm_kernels.training.run_folder import open_run_folder
folder = open_run_folder(Path('run'), None, label='x')
os.kill(os.getpid(), signal.SIGKILL)
"""


def test_the_writer_is_the_process_not_its_file(tmp_path):
    """Killed, it leaves its file behind; the folder is free all the same."""
    killed = subprocess.run([sys.executable, "-c", DIES], cwd=tmp_path, check=False)
    assert killed.returncode == -signal.SIGKILL
    assert (tmp_path / "run" / ".lock").exists()
    with open_run_folder(tmp_path / "run", None, label="x"):
        sentence = rf"Another run \(process {os.getpid()}\) writes in .*run\."
        with pytest.raises(RunFolderError, match=sentence):
            open_run_folder(tmp_path / "run", None, label="x")


def test_what_is_not_of_the_run_is_set_aside(tmp_path):
    (tmp_path / "metrics.jsonl").write_text("of another tool")
    (tmp_path / "loss.png").write_bytes(b"a figure")
    with open_run_folder(tmp_path, None, label="x") as folder:
        assert not folder.metrics.exists()
        assert not folder.plot.exists()
    assert (tmp_path / "metrics-before-1.jsonl").read_text() == "of another tool"
    assert (tmp_path / "loss-before-1.png").read_bytes() == b"a figure"
