"""Faults planted in our kernels and plans, one at a time: each must turn a test red."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import embedding_faults
import mlx.core as mx
import pytest
import rotary_faults
from attention_faults import ATTENTION_OFFSETS, ATTENTION_SOURCES, BIAS, DKV, DQ, FWD, MAP
from embedding_faults import PLACES, POSITIONS, ROWS, TOKENS
from far_rows import FarRows
from infinite_segment import changed_neighbours
from metal_emulator import Emulator, MetalCompileError, MetalFault, emulating
from problems import AttentionProblem, EmbeddingProblem, Problem, check_results, results
from rotary_faults import TURN
from rotary_problem import RotaryProblem

from mlx_esm_kernels import _ext

pytestmark = pytest.mark.slow


def all_scores_below(score: float) -> AttentionProblem:
    """Every score of every row, so that nothing lies above what a maximum begins with."""
    problem = AttentionProblem((1, 1, 45, 16))
    size = (-score * 2 / 16**0.5) ** 0.5
    q, k = problem.arrays["q"], problem.arrays["k"]
    return problem.with_arrays(q=size + q / size, k=-size + k / size)


PROBLEMS: tuple[Problem, ...] = (
    AttentionProblem((2, 2, 77, 16), segments="runs", biases=True, poisoned=True),
    AttentionProblem((1, 2, 70, 8), segments="interleaved", layouts=("last_transposed",) * 4),
    AttentionProblem((1, 1, 45, 104), dtype="float16", biases=True),
    AttentionProblem((1, 1, 45, 104), segments="runs"),
    AttentionProblem((1, 1, 1100, 8), segments="runs"),
    AttentionProblem((1, 1, 130, 16), score_size=300.0),
    AttentionProblem((1, 1, 45, 16), score_size=1e37),
    all_scores_below(-1e5),
    *embedding_faults.PROBLEMS,
    *rotary_faults.PROBLEMS,
)
SPLIT = AttentionProblem((2, 2, 70, 16), segments="runs", biases=True)  # into parts along all axes
INFINITE = (
    AttentionProblem((1, 2, 70, 16), segments="runs"),
    AttentionProblem((1, 1, 70, 104), segments="interleaved"),
)

# kernel, what stands there, what stands there instead; every occurrence in the kernel's source.
SOURCES = (
    *ATTENTION_SOURCES,
    *embedding_faults.SOURCES,
    *rotary_faults.SOURCES,
)


def _grid(launch: dict[str, Any]) -> None:
    x, y, z = launch["grid"]
    launch["grid"] = (x - 1, y, z) if x > 1 else (x, y - 1, z) if y > 1 else (x + 1, y, z)


def _more_groups(launch: dict[str, Any]) -> None:
    x, y, z = launch["grid"]
    launch["grid"] = (x, y, z + 1)


def _fewer_threads(launch: dict[str, Any]) -> None:
    launch["group"] = (launch["group"][0] // 2, 1, 1)


def _swapped_buffers(launch: dict[str, Any]) -> None:
    a, b, *others = launch["buffers"]
    launch["buffers"] = [(b[0], *a[1:]), (a[0], *b[1:]), *others]


def _short_constants(launch: dict[str, Any]) -> None:
    ((slot, data),) = launch["constants"]
    launch["constants"] = [(slot, data[:-16])]


def _flipped_constant(launch: dict[str, Any]) -> None:
    (index, value), *others = launch["function_constants"]
    launch["function_constants"] = [(index, not value), *others]


def _no_memory(launch: dict[str, Any]) -> None:
    launch["threadgroup_bytes"] += 16


PLANS: tuple[tuple[str, Callable[[dict[str, Any]], None]], ...] = (
    *(
        (kernel, _grid)
        for kernel in (FWD, DQ, DKV, MAP, BIAS, PLACES, ROWS, TOKENS, POSITIONS, TURN)
    ),
    *((kernel, _more_groups) for kernel in (FWD, DKV, MAP, TURN)),
    *((kernel, _fewer_threads) for kernel in (FWD, DQ, PLACES, TURN)),
    *((kernel, _swapped_buffers) for kernel in (FWD, DQ, DKV, BIAS, TURN)),
    *((kernel, _short_constants) for kernel in (FWD, DKV, ROWS, TURN)),
    *((kernel, _flipped_constant) for kernel in (FWD, DKV, PLACES, TURN)),
    (DQ, _no_memory),
)


# kernel, what stands there, what stands instead, along which axis rows lie far apart.
NARROW_OFFSETS = (
    *ATTENTION_OFFSETS,
    *embedding_faults.NARROW_OFFSETS,
    *rotary_faults.NARROW_OFFSETS,
)
FAR_PROBLEMS: tuple[Problem, ...] = (
    AttentionProblem((2, 2, 3, 8)),
    EmbeddingProblem((2, 3, 8)),
    RotaryProblem((2, 2, 3, 8)),
)
KINDS: dict[str, type[Problem]] = {
    "masked_attention": AttentionProblem,
    "positional_embedding": EmbeddingProblem,
    "rotary": RotaryProblem,
}


class Planted:
    """Has every launch changed before it runs, and keeps what the emulator says.

    A fault is not raised: MLX hangs after a hundred errors of its CPU streams.
    """

    def __init__(self, change: Callable[[dict[str, Any]], None]) -> None:
        self.faults: list[Exception] = []
        self._change = change
        self._emulator = Emulator()

    def execute(self, plan: list[dict[str, Any]]) -> None:
        try:
            for launch in plan:
                self._change(launch)
            self._emulator.execute(plan)
        except (MetalFault, MetalCompileError) as fault:
            self.faults.append(fault)


def _survives(
    kernel: str,
    change: Callable[[dict[str, Any]], None],
    problems: tuple[Problem, ...] = PROBLEMS,
    far_axis: str | None = None,
) -> bool:
    """Whether all problems of the kernel's op are still solved."""
    kind = next(KINDS[op] for op in KINDS if kernel.startswith(op))
    planted = Planted(change)
    execute = FarRows(far_axis, planted.execute).execute if far_axis else planted.execute
    with emulating(execute):
        _forget_block_map()
        try:
            for problem in problems:
                if isinstance(problem, kind):
                    found = results(problem, _ext)
                    if planted.faults:
                        return False
                    check_results(problem, found)
            if kind is AttentionProblem and problems is PROBLEMS:
                return _split_parts_are_right() and not planted.faults and _infinity_stays()
        except AssertionError:
            return False
    return True


def _forget_block_map() -> None:
    """That of the last segment ids is remembered, and may have come from another fault."""
    q = mx.zeros((1, 1, 1, 8))
    _ext.masked_attention(q, q, q, segment_ids=mx.ones((1, 1), mx.int64))


def _split_parts_are_right() -> bool:
    """Whether a plan of many small launches solves its problem as well."""
    _ext.set_launch_products(300)
    try:
        check_results(SPLIT, results(SPLIT, _ext))
    finally:
        _ext.set_launch_products(None)
    return True


def _infinity_stays() -> bool:
    return not any(changed_neighbours(problem) for problem in INFINITE)


def replacing(
    kernel: str, there: str, instead: str
) -> tuple[Callable[[dict[str, Any]], None], list[str]]:
    """A change of the kernel's source, and a list that says whether it was made."""
    found: list[str] = []

    def change(launch: dict[str, Any]) -> None:
        if launch["kernel"] == kernel and there in launch["source"]:
            found.append(kernel)
            launch["source"] = launch["source"].replace(there, instead)

    return change, found


@pytest.mark.parametrize("kernel", [FWD, ROWS, TURN])
def test_without_a_fault_all_problems_are_solved(kernel: str) -> None:
    assert _survives(kernel, lambda launch: None)


@pytest.mark.parametrize("axis", "bhldc")
def test_without_a_fault_far_rows_are_found(axis: str) -> None:
    assert _survives(FWD, lambda launch: None, FAR_PROBLEMS, axis)
    assert _survives(ROWS, lambda launch: None, FAR_PROBLEMS, axis)
    assert _survives(TURN, lambda launch: None, FAR_PROBLEMS, axis)


@pytest.mark.parametrize(("kernel", "there", "instead"), SOURCES)
def test_a_fault_in_a_kernel_is_seen(kernel: str, there: str, instead: str) -> None:
    change, found = replacing(kernel, there, instead)
    assert not _survives(kernel, change)
    assert found, "the kernel has changed: plant the fault anew"


@pytest.mark.parametrize(("kernel", "there", "instead", "axis"), NARROW_OFFSETS)
def test_an_offset_of_32_bits_is_seen(kernel: str, there: str, instead: str, axis: str) -> None:
    change, found = replacing(kernel, there, instead)
    assert not _survives(kernel, change, FAR_PROBLEMS, axis)
    assert found, "the kernel has changed: plant the fault anew"


@pytest.mark.parametrize(("kernel", "change"), PLANS)
def test_a_fault_in_a_plan_is_seen(kernel: str, change: Callable[[dict[str, Any]], None]) -> None:
    assert not _survives(
        kernel, lambda launch: change(launch) if launch["kernel"] == kernel else None
    )
