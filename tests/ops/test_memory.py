"""Attention's memory grows with L, never with L x L."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

MEASURE = Path(__file__).parents[2] / "bench" / "harness" / "measure_attention_memory.py"
FLOAT = 4


def measure(*numbers: int) -> dict[str, float]:
    done = subprocess.run(
        [sys.executable, str(MEASURE), *map(str, numbers)],
        capture_output=True,
        text=True,
        timeout=300,
        check=True,
    )
    found: dict[str, float] = json.loads(done.stdout)
    return found


def test_forward_and_backward_at_length_8192_hold_no_l_by_l_array() -> None:
    batch, heads, length, dim = 1, 4, 8192, 64
    used = measure(batch, heads, length, dim)
    one_input = batch * heads * length * dim * FLOAT
    l_by_l = length * length * FLOAT  # of a single head
    assert 8 * one_input < l_by_l
    # o, dq, dk, dv and rows of lse and delta are needed; the rest is the kernels' scratch.
    assert 4 * one_input <= used["allocated"] < 6 * one_input
    assert used["resident"] < 8 * one_input


@pytest.mark.parametrize("segments", [0, 20])
def test_memory_doubles_with_the_length(segments: int) -> None:
    short, long = (measure(1, 1, length, 64, segments) for length in (2048, 4096))
    assert long["allocated"] < 2.2 * short["allocated"]
    assert long["resident"] < 4096 * 4096 * FLOAT / 4
