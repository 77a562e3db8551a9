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
from mlx_esm_kernels.ops import dispatch, timings
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
    ops.rotary(mx.ones((1, 1, 4, 8)), mx.ones((1, 4, 8)))
    assert metal.calls[-1] == ("rotary", True)


def test_a_head_dim_that_is_not_served_is_for_mlx_untested(metal: FakeMetal) -> None:
    assert not served_by_ours(metal, (1, 1, 8, 12))
    assert len(metal.calls) == 1


IDS = mx.array([[1, 1, 1, 2, 2, 2, 0, 0]])
DTYPES = [mx.float32, mx.float16, mx.bfloat16]


@pytest.mark.parametrize("generation", [13, 17])
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("head_dim", [64, 72, 80, 96, 128])
def test_dense_calls_of_mlx_s_own_head_dims_are_for_mlx(
    metal: FakeMetal, head_dim: int, dtype: mx.Dtype, generation: int
) -> None:
    metal.chip["generation"] = generation
    assert not served_by_ours(metal, (1, 1, 8, head_dim), dtype=dtype)
    assert len(metal.calls) == 1  # no self-test of what does not serve


@pytest.mark.parametrize("head_dim", [8, 16, 24, 32, 56, 88, 104, 112, 120])
def test_dense_calls_of_other_head_dims_are_ours(metal: FakeMetal, head_dim: int) -> None:
    assert served_by_ours(metal, (1, 1, 8, head_dim))


BIASES = {"bias_k": mx.ones((1, 64)), "bias_v": mx.ones((1, 64))}


@pytest.mark.parametrize(
    "options",
    [
        {"segment_ids": IDS},
        BIASES,
        {"segment_ids": IDS} | BIASES,
        {"kernels": "ours"},
    ],
    ids=["segments", "extra key", "both", "asked for"],
)
def test_what_mlx_lacks_stays_ours(metal: FakeMetal, options: dict[str, Any]) -> None:
    assert served_by_ours(metal, (1, 1, 8, 64), **options)


def timing(length: int, ours: float, mlx: float, dense: bool = True) -> timings.Timing:
    """In which forward alone says the opposite."""
    return {
        "dense": dense,
        "length": length,
        "forward": [mlx, ours],
        "forward_backward": [ours, mlx],
    }


def test_a_measured_winner_takes_the_place_of_the_rule(metal: FakeMetal) -> None:
    timings.keep(64, mx.float32, [timing(8, 1e-3, 2e-3)])
    timings.keep(16, mx.float32, [timing(8, 2e-3, 1e-3)])
    metal.new_process()
    assert served_by_ours(metal, (1, 1, 8, 64))
    assert not served_by_ours(metal, (1, 1, 8, 16))


def test_timings_speak_for_their_own_head_dim_and_dtype_and_mask(metal: FakeMetal) -> None:
    timings.keep(64, mx.float32, [timing(8, 1e-3, 2e-3)])
    timings.keep(16, mx.float32, [timing(8, 2e-3, 1e-3, dense=False)])
    assert not served_by_ours(metal, (1, 1, 8, 64), dtype=mx.float16)
    assert not served_by_ours(metal, (1, 1, 8, 80))
    assert served_by_ours(metal, (1, 1, 8, 16))
    assert not served_by_ours(metal, (1, 1, 8, 16), segment_ids=IDS)


def test_the_extra_key_is_ours_whatever_was_measured(metal: FakeMetal) -> None:
    timings.keep(64, mx.float32, [timing(8, 2.0, 1.0), timing(8, 2.0, 1.0, dense=False)])
    assert served_by_ours(metal, (1, 1, 8, 64), **BIASES)
    assert served_by_ours(metal, (1, 1, 8, 64), segment_ids=IDS, **BIASES)


@pytest.mark.parametrize(
    ("length", "ours"), [(1, False), (8, False), (15, False), (17, True), (32, True), (99, True)]
)
def test_the_nearest_length_as_a_ratio_decides(metal: FakeMetal, length: int, ours: bool) -> None:
    timings.keep(64, mx.float32, [timing(8, 2.0, 1.0), timing(32, 1.0, 2.0)])
    assert served_by_ours(metal, (1, 1, length, 64)) is ours


@pytest.mark.parametrize(("length", "ours"), [(4, False), (8, False), (9, True)])
@pytest.mark.parametrize(("head_dim", "dense"), [(64, False), (16, True)])
def test_that_mlx_won_with_l_by_l_arrays_says_nothing_of_longer_calls(
    metal: FakeMetal, head_dim: int, dense: bool, length: int, ours: bool
) -> None:
    timings.keep(head_dim, mx.float32, [timing(8, 2.0, 1.0, dense)])
    ids = None if dense else mx.ones((1, length), mx.int32)
    assert served_by_ours(metal, (1, 1, length, head_dim), segment_ids=ids) is ours


def test_a_measured_winner_must_pass_its_self_test_too(metal: FakeMetal) -> None:
    timings.keep(64, mx.float32, [timing(8, 1e-3, 2e-3)])
    metal.change = lambda x: x + 1
    with pytest.warns(KernelWarning):
        assert not served_by_ours(metal, (1, 1, 8, 64))


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


def message(caplog: pytest.LogCaptureFixture, metal: FakeMetal, head_dim: int) -> str:
    caplog.clear()
    with caplog.at_level(logging.DEBUG, logger="mlx_esm_kernels"):
        served_by_ours(metal, (1, 1, 8, head_dim))
    said: str = caplog.records[-1].message
    return said.removeprefix(f"masked_attention (1, 1, 8, {head_dim}) mlx.core.float32: ")


def test_the_log_gives_the_reason_of_the_rule_and_the_figures_of_a_timing(
    metal: FakeMetal, caplog: pytest.LogCaptureFixture
) -> None:
    assert message(caplog, metal, 64) == f"MLX, as {dispatch.MLX_REASON}"
    assert message(caplog, metal, 16) == "ours, as our kernel passed its self-test"
    timings.keep(64, mx.float32, [timing(512, 2.2e-3, 1.8e-3)])
    timings.keep(16, mx.float32, [timing(512, 1.8e-3, 2.2e-3)])
    figures = "measured here: ours 2.2 ms, MLX 1.8 ms at L = 512"
    assert message(caplog, metal, 64) == f"MLX, as {figures}"
    assert message(caplog, metal, 16) == (
        "ours, as measured here: ours 1.8 ms, MLX 2.2 ms at L = 512, and our kernel passed its "
        "self-test"
    )


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
