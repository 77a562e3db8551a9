"""What the self-test sees by numbers alone, as on a GPU, where nothing checks races or bounds."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from typing import Any

import embedding_faults
import mlx.core as mx
import pytest
from attention_faults import BIAS, DKV, DQ, FWD, MAP
from embedding_faults import PLACES, POSITIONS, ROWS, SUM, TOKENS
from metal_emulator import FORWARD, REVERSE, Emulator, emulating
from metal_emulator.emulator import RANDOM
from rotary_faults import TURN
from test_mutations import KINDS, SOURCES, replacing
from unchecked_emulator import UncheckedEmulator

from mlx_esm_kernels.ops import self_test

pytestmark = pytest.mark.slow

# Faults that are for numbers to see, besides those of test_mutations.py.
OF_NUMBERS = (
    (FWD, "x[m].weights[j], v);", "float2(half2(x[m].weights[j])), v);"),
    (DQ, "x[m].dq[f], dscore[m], k", "x[m].dq[f], float2(half2(dscore[m])), k"),
)
# No number depends on them where nothing lies beyond an array but zeros: they read or write what is
# selected away, or all lanes write the same. They are for the emulator's checks.
OF_CHECKS = {
    (FWD, "if (!partial || ids[row] != 0l) {"),
    (DKV, "if (!partial || ids[row] != 0l) {"),
    (DQ, "if (x[m].id != 0l) {\n"),
    (DQ, "if (row == 0) {"),
    (DKV, "    if (l < L) {\n      row_lse"),
    (MAP, "if (row < p.L) {"),
    (BIAS, "if (int(simdgroup_index) < half_way) {"),
    (BIAS, "if (column < HEAD_DIM) {\n    for"),
    (PLACES, "if (exists) {"),
    (PLACES, "if (lane == 0u) {"),
    (ROWS, "if (at >= p.rows) {"),
    (TOKENS, "if (first + thread_index < end) {"),
    (SUM, "if (at >= size) {"),
    (POSITIONS, "if (position < p.positions) {"),
    (POSITIONS, "if (first + thread_index < rows) {"),
}
# What a compiler may refuse gives no number.
OF_NEITHER = {
    (POSITIONS, "row.l %= uint(L);"),
    (POSITIONS, embedding_faults.SOURCES[-1][1]),
}
SEEN = [fault for fault in (*SOURCES, *OF_NUMBERS) if fault[:2] not in OF_CHECKS | OF_NEITHER]


def said(
    kernel: str, device: Emulator, change: Callable[[dict[str, Any]], None], head_dim: int = 16
) -> str:
    """What the self-test says of the op of this kernel, changed, on this device."""

    def execute(plan: list[dict[str, Any]]) -> None:
        for launch in plan:
            change(launch)
        device.execute(plan)

    with emulating(execute):
        if kernel.startswith("masked_attention"):
            return self_test.attention_problem(head_dim, mx.float32, mx.cpu)
        op = next(op for op in KINDS if kernel.startswith(op))
        return self_test.problem(op, mx.float32, mx.cpu)


def is_of_numbers(problem: str) -> bool:
    return bool(problem) and "it raised" not in problem


@pytest.mark.parametrize("kernel", [FWD, PLACES, TURN])
@pytest.mark.parametrize("order", [FORWARD, REVERSE, RANDOM])
def test_without_a_fault_it_says_nothing(kernel: str, order: int) -> None:
    assert said(kernel, UncheckedEmulator(order), lambda launch: None) == ""


@pytest.mark.parametrize(("kernel", "there", "instead"), SEEN)
def test_a_fault_is_seen_by_its_numbers(kernel: str, there: str, instead: str) -> None:
    """At D = 16, or where keys lie in threadgroup memory, and in some order of threads."""
    change, found = replacing(kernel, there, instead)
    assert any(
        is_of_numbers(said(kernel, UncheckedEmulator(order), change, head_dim))
        for head_dim, order in itertools.product((16, 104), (FORWARD, REVERSE, RANDOM))
    )
    assert found, "the kernel has changed: plant the fault anew"


@pytest.mark.parametrize(
    ("kernel", "there", "instead"), [fault for fault in SOURCES if fault[:2] in OF_CHECKS]
)
def test_a_fault_without_numbers_is_seen_by_the_checks(
    kernel: str, there: str, instead: str
) -> None:
    change, found = replacing(kernel, there, instead)
    assert not is_of_numbers(said(kernel, UncheckedEmulator(), change))
    assert "MetalFault" in said(kernel, Emulator(), change)
    assert found, "the kernel has changed: plant the fault anew"


def test_every_fault_that_is_set_apart_is_one_that_is_planted() -> None:
    assert {fault[:2] for fault in SOURCES} >= OF_CHECKS | OF_NEITHER
