"""The self-test's cases are what they claim to be, and its judge lets nothing else pass."""

from __future__ import annotations

from typing import Any

import mlx.core as mx
import numpy as np
import pytest

from mlx_esm_kernels.ops.cases import attention_cases, embedding_cases, rotary_cases
from mlx_esm_kernels.ops.judging import Case, Finding, findings

DTYPES = (mx.float32, mx.float16, mx.bfloat16)


CASES = (*attention_cases(8), *embedding_cases(), *rotary_cases())


@pytest.mark.parametrize("case", CASES, ids=lambda c: c.name)
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_every_number_of_a_case_is_exact_in_every_dtype(case: Case, dtype: mx.Dtype) -> None:
    for x in (*case.inputs, case.cotangent):
        stored = mx.array(x.astype(np.float32)).astype(dtype).astype(mx.float32)
        np.testing.assert_array_equal(np.array(stored), x)


def test_the_cases_make_all_kinds_of_kernels() -> None:
    from metal_emulator import Emulator, emulating

    device, made = Emulator(orders=(0,)), set()

    def execute(plan: list[dict[str, Any]]) -> None:
        for launch in plan:
            made.add((launch["kernel"], *launch["function_constants"]))
        device.execute(plan)

    with emulating(execute):
        for case in CASES:
            list(findings(case, mx.float32, mx.cpu))
    kinds: dict[str, int] = {}
    for kernel, *_ in made:
        kinds[kernel] = kinds.get(kernel, 0) + 1
    for kernel in ("fwd", "bwd_dq", "bwd_dkv"):
        assert kinds[f"masked_attention_{kernel}"] == 8
    assert kinds["positional_embedding_places"] == 4
    assert kinds["rotary_turn"] == 2
    assert kinds["positional_embedding_fwd"] == kinds["positional_embedding_bwd_positions"] == 2


TRUE = np.array([0.0, 1.0, -2.0, np.nan, 7.0])
UNIT = np.array([0.0, 1e-3, 2e-3, 1.0, np.inf])


def finding(result: list[float], dtype: mx.Dtype = mx.float32, name: str = "x") -> Finding:
    case = Case(
        "small",
        (name,),
        (),
        np.zeros(5),
        lambda *_, stream: mx.array(result),
        {name: TRUE},
        lambda dtype: {name: UNIT},
    )
    (found,) = findings(case, dtype, mx.cpu)
    return found


NAN = float("nan")


@pytest.mark.parametrize(
    ("result", "problem"),
    [
        ([0, 1.0039, -2, NAN, 1e9], ""),
        ([0, 1.0041, -2, NAN, 7], "largest error 0.0041, limit 0.004, where the value is 1; 1 of"),
        ([0, 1, -2.0081, NAN, 7], "limit 0.008, where the value is -2"),
        ([1e-9, 1, -2, NAN, 7], "what must be exactly 0 is not"),
        ([0, 1, -2, 0, 7], "what must be NaN"),
        ([0, 1, NAN, NAN, 7], "holds NaN or infinity"),
        ([0, 1, float("inf"), NAN, 7], "holds NaN or infinity"),
        ([0, 1, -2, NAN, NAN], ""),
    ],
)
def test_a_result_is_judged_element_by_element(result: list[float], problem: str) -> None:
    found = finding(result).problem
    assert problem in found
    assert bool(found) == bool(problem)


def test_16_bits_and_gradients_of_scores_have_less_room() -> None:
    result = [0, 1.0016, -2, NAN, 7]
    assert finding(result, mx.float32).problem == ""
    assert "limit 0.0015" in finding(result, mx.bfloat16).problem
    assert "limit 0.0015" in finding(result, mx.float32, "dq").problem


def test_the_worst_element_is_the_one_nearest_to_its_limit() -> None:
    found = finding([0, 1.002, -2.003, NAN, 7])
    assert found.error == pytest.approx(2e-3, rel=1e-3)
    assert found.limit == pytest.approx(4e-3, rel=1e-3)
