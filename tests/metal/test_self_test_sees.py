"""What the self-test sees by numbers alone, as on a GPU, where nothing checks races or bounds."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import mlx.core as mx
import pytest
from metal_emulator import FORWARD, REVERSE, Emulator, emulating
from metal_emulator.emulator import RANDOM
from test_mutations import DKV, DQ, FWD, PLACES, SOURCES, TOKENS, replacing
from unchecked_emulator import UncheckedEmulator

from mlx_esm_kernels.ops import self_test

pytestmark = pytest.mark.slow

# Faults that are for numbers to see: kernel, what stands there, what stands there instead.
OF_NUMBERS = (
    (FWD, "x.largest = -1e38f;", "x.largest = -1e4f;"),
    (FWD, "x.sum[f], weights[j],", "x.sum[f], float2(half2(weights[j])),"),
    (DQ, "x.dq[f], dscore,", "x.dq[f], float2(half2(dscore)),"),
    (PLACES, "position < long(p.positions)", "position <= long(p.positions)"),
    (TOKENS, "lookup.position >= 0 && lookup.factor", "lookup.factor"),
)
# No number depends on them: all lanes write the same bits, and the weight of a row beyond L is
# selected away. They are for the emulator's checks.
OF_CHECKS = (
    (DQ, "if (row == 0) {", "if (true) {"),
    (DKV, "l < L ? lse[l] : 0.0f", "lse[l]"),
)


def said(kernel: str, device: Emulator, change: Callable[[dict[str, Any]], None]) -> str:
    """What the self-test says of the op of this kernel, changed, on this device."""

    def execute(plan: list[dict[str, Any]]) -> None:
        for launch in plan:
            change(launch)
        device.execute(plan)

    with emulating(execute):
        if kernel.startswith("masked_attention"):
            return self_test.attention_problem(16, mx.float32, mx.cpu)
        return self_test.embedding_problem(mx.float32, mx.cpu)


def is_of_numbers(problem: str) -> bool:
    return bool(problem) and "it raised" not in problem


@pytest.mark.parametrize("kernel", [FWD, PLACES])
@pytest.mark.parametrize("order", [FORWARD, REVERSE, RANDOM])
def test_without_a_fault_it_says_nothing(kernel: str, order: int) -> None:
    assert said(kernel, UncheckedEmulator(order), lambda launch: None) == ""


@pytest.mark.parametrize(
    ("kernel", "there", "instead"),
    [fault for fault in (*SOURCES, *OF_NUMBERS) if fault not in OF_CHECKS],
)
def test_a_fault_is_seen_by_its_numbers(kernel: str, there: str, instead: str) -> None:
    change, found = replacing(kernel, there, instead)
    orders = (FORWARD, REVERSE, RANDOM)
    assert any(is_of_numbers(said(kernel, UncheckedEmulator(order), change)) for order in orders)
    assert found, "the kernel has changed: plant the fault anew"


@pytest.mark.parametrize(("kernel", "there", "instead"), OF_CHECKS)
def test_a_fault_without_numbers_is_seen_by_the_checks(
    kernel: str, there: str, instead: str
) -> None:
    assert (kernel, there, instead) in SOURCES
    change, found = replacing(kernel, there, instead)
    assert said(kernel, UncheckedEmulator(), change) == ""
    assert "MetalFault" in said(kernel, Emulator(), change)
    assert found, "the kernel has changed: plant the fault anew"
