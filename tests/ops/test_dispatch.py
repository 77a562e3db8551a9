"""Which code serves a call on a Metal GPU, and how a person has it otherwise."""

from __future__ import annotations

import logging
import subprocess
import sys
from typing import Any

import mlx.core as mx
import pytest
from fake_metal import FakeMetal, metal

from mlx_esm_kernels import _ext, ops
from mlx_esm_kernels.ops import dispatch
from mlx_esm_kernels.ops.self_test import KernelWarning

__all__ = ["metal"]


def served_by_ours(metal: FakeMetal, shape: tuple[int, ...], **options: Any) -> bool:
    dtype = options.pop("dtype", mx.float32)
    x = mx.zeros(shape, dtype)
    ops.masked_attention(x, x, x, **options)
    return metal.calls[-1][1]


def test_ours_serve_where_no_rule_speaks_for_mlx(metal: FakeMetal) -> None:
    assert served_by_ours(metal, (1, 1, 8, 16))
    ops.positional_embedding(mx.ones((1, 4), mx.int32), *[mx.ones((9, 8))] * 2, padding_idx=1)
    assert metal.calls[-1] == ("positional_embedding", True)


def test_a_head_dim_that_is_not_served_is_for_mlx_untested(metal: FakeMetal) -> None:
    assert not served_by_ours(metal, (1, 1, 8, 12))
    assert len(metal.calls) == 1


LONG = (1, 1, 1024, 64)


@pytest.mark.parametrize(
    ("generation", "shape", "options", "ours"),
    [
        (17, LONG, {}, False),
        (16, LONG, {}, True),
        (17, (1, 1, 1023, 64), {}, True),
        (17, (1, 1, 1024, 16), {}, True),
        (17, LONG, {"dtype": mx.float32}, True),
        (17, LONG, {"segment_ids": mx.ones((1, 1024), mx.int32)}, True),
        (17, LONG, {"kernels": "ours"}, True),
        (17, (1, 1, 32768, 64), {}, True),
    ],
)
def test_dense_long_half_precision_is_for_mlx_from_m5_on(
    metal: FakeMetal, generation: int, shape: tuple[int, ...], options: dict[str, Any], ours: bool
) -> None:
    metal.chip["generation"] = generation
    assert served_by_ours(metal, shape, **{"dtype": mx.float16} | options) is ours


WIDE = (1, 1, 512, 128)


@pytest.mark.parametrize(
    ("shape", "options", "ours"),
    [
        (WIDE, {}, False),
        (WIDE, {"dtype": mx.bfloat16}, False),
        ((1, 1, 512, 104), {}, False),
        ((1, 1, 512, 96), {}, True),
        ((1, 1, 511, 128), {}, True),
        ((1, 17, 2048, 128), {}, True),
        (WIDE, {"segment_ids": mx.ones((1, 512), mx.int32)}, True),
        (WIDE, {"kernels": "ours"}, True),
    ],
)
def test_dense_wide_heads_are_for_mlx_where_its_arrays_are_small(
    metal: FakeMetal, shape: tuple[int, ...], options: dict[str, Any], ours: bool
) -> None:
    assert served_by_ours(metal, shape, **options) is ours


def test_the_argument_wins_over_the_environment(
    metal: FakeMetal, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(dispatch, "_default_choice", "mlx")
    assert not served_by_ours(metal, (1, 1, 8, 16))
    assert served_by_ours(metal, (1, 1, 8, 16), kernels="ours")
    assert not served_by_ours(metal, (1, 1, 8, 16), kernels="mlx")


def test_an_unknown_choice_is_refused(metal: FakeMetal) -> None:
    with pytest.raises(ValueError, match=r"^\[masked_attention\] kernels must be .*got best\.$"):
        served_by_ours(metal, (1, 1, 8, 16), kernels="best")


def test_a_wrong_kernel_gives_mlx_numbers(metal: FakeMetal) -> None:
    metal.change = lambda x: x + 1
    x = mx.zeros((1, 1, 8, 16))
    with pytest.warns(KernelWarning):
        out = ops.masked_attention(x, x, x)
    assert not out.any().item()


def test_each_decision_is_one_line_of_the_debug_log(
    metal: FakeMetal, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.DEBUG, logger="mlx_esm_kernels"):
        served_by_ours(metal, (1, 1, 8, 12))
    assert [record.message for record in caplog.records] == [
        "masked_attention (1, 1, 8, 12) mlx.core.float32: MLX, as no kernel of ours serves D and "
        "dtype"
    ]


def test_the_log_gives_the_reason_of_a_rule(
    metal: FakeMetal, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.DEBUG, logger="mlx_esm_kernels"):
        served_by_ours(metal, WIDE)
    (record,) = caplog.records
    assert record.message.startswith("masked_attention (1, 1, 512, 128) mlx.core.float32: MLX, as ")
    assert record.message.endswith(dispatch.ATTENTION_RULES[1].reason)


def test_on_the_cpu_only_the_argument_counts(
    metal: FakeMetal, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(_ext, "runs_on_metal", lambda stream: False)
    monkeypatch.setattr(dispatch, "_default_choice", "mlx")
    assert served_by_ours(metal, (1, 1, 8, 16))
    assert not served_by_ours(metal, (1, 1, 8, 16), kernels="mlx")
    assert len(metal.calls) == 2


@pytest.mark.parametrize("name", ["GPU_KERNELS", "SELF_TEST"])
def test_a_bad_switch_is_refused_at_import(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(f"MLX_ESM_KERNELS_{name}", "best")
    run = subprocess.run(
        [sys.executable, "-c", "import mlx_esm_kernels"],
        capture_output=True,
        text=True,
        check=False,
    )
    last = run.stderr.strip().splitlines()[-1]
    assert last.startswith("ValueError: ")
    assert f"MLX_ESM_KERNELS_{name} must be" in last
    assert last.endswith("got best.")
