"""Files that appear whole or not at all, also where two write the same one."""

from __future__ import annotations

import os
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from mlx_esm_kernels.system.whole_file import (
    OutputError,
    require_no_input,
    require_writable,
    whole_file,
)


def test_two_threads_may_write_one_file(tmp_path: Path) -> None:
    path, both = tmp_path / "a.txt", threading.Barrier(2)

    def write(text: str) -> None:
        with whole_file(path) as half_done:
            both.wait()
            half_done.write_text(text)
            both.wait()

    with ThreadPoolExecutor(2) as pool:
        list(pool.map(write, ["one" * 1000, "two" * 1000]))
    assert path.read_text() in ("one" * 1000, "two" * 1000)
    assert list(tmp_path.iterdir()) == [path]


def test_an_exception_leaves_the_old_file_and_nothing_else(tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    path.write_text("old")

    def fail() -> None:
        with whole_file(path) as half_done:
            half_done.write_text("new")
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        fail()
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


def test_what_cannot_be_written_is_told_in_a_sentence(tmp_path: Path) -> None:
    path = tmp_path / "nowhere" / "a.txt"
    said = r"a\.txt cannot be written: No such file"
    with pytest.raises(OutputError, match=said), whole_file(path) as half_done:
        half_done.write_text("x")


def test_trouble_with_two_files_is_told_once_of_the_inner_one(tmp_path: Path) -> None:
    inner = tmp_path / "nowhere" / "b.txt"
    with (
        pytest.raises(OutputError) as raised,
        whole_file(tmp_path / "a.txt"),
        whole_file(inner) as b,
    ):
        b.write_text("x")
    assert str(raised.value) == f"{inner} cannot be written: No such file or directory."
    assert isinstance(raised.value, OSError)


def test_a_symbolic_link_is_followed(tmp_path: Path) -> None:
    real, link = tmp_path / "real" / "a.txt", tmp_path / "link.txt"
    real.parent.mkdir()
    link.symlink_to(real)
    require_writable(link)
    with whole_file(link) as half_done:
        half_done.write_text("new")
    assert link.is_symlink()
    assert real.read_text() == "new"
    real.unlink()
    real.parent.rmdir()
    with pytest.raises(OutputError, match=r"link\.txt cannot be written: there is no folder"):
        require_writable(link)


def test_a_pipe_is_written_to_and_not_replaced(tmp_path: Path) -> None:
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    require_writable(pipe)
    with ThreadPoolExecutor(1) as pool:
        read = pool.submit(pipe.read_text)
        with whole_file(pipe) as same:
            same.write_text("through")
        assert read.result() == "through"
    assert pipe.is_fifo()


def test_what_is_read_is_not_written_to_but_results_beside_it_are(tmp_path: Path) -> None:
    for name in ("config.json", "model.safetensors", "evaluation.json", "new.fasta"):
        (tmp_path / name).touch()
    (tmp_path / "link.json").symlink_to(tmp_path / "config.json")
    for name in ("config.json", "model.safetensors", "link.json"):
        with pytest.raises(OutputError, match=f"{name} is part of the input"):
            require_no_input(tmp_path / name, "-", None, tmp_path)
    with pytest.raises(OutputError, match=r"new\.fasta is the input too"):
        require_no_input(tmp_path / "new.fasta", tmp_path / "new.fasta")
    for name in ("evaluation.json", "new.fasta", "not-there.json"):
        require_no_input(tmp_path / name, "esm2_t6_8M_UR50D", tmp_path)
