"""Files that appear whole or not at all, also where two write the same one."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from mlx_esm_kernels.system.whole_file import OutputError, replacement, whole_file


def test_two_threads_may_write_one_file(tmp_path: Path) -> None:
    path, both = tmp_path / "a.txt", threading.Barrier(2)

    def write(text: str) -> None:
        with replacement(path) as half_done:
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
        with replacement(path) as half_done:
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
