"""Kernels are checked where they run: a wrong one never gives a number, a right one is trusted."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from pathlib import Path

import mlx.core as mx
import pytest
from fake_metal import Change, FakeMetal, metal

from mlx_esm_kernels.ops import self_test, tiles
from mlx_esm_kernels.ops.self_test import KernelWarning, attention_passes

__all__ = ["metal"]


def raises(x: mx.array) -> mx.array:
    raise RuntimeError("error: unknown type name 'simdgroup_half8x8'")


WRONG: dict[str, Change] = {
    "one element off": lambda x: x + (mx.arange(x.size) == x.size // 3).reshape(x.shape),
    "a little too large": lambda x: x * 1.05,
    "a stray NaN": lambda x: mx.where(mx.arange(x.size).reshape(x.shape) == 5, mx.nan, x),
    "padding not zero": lambda x: mx.where(x == 0, 1e-3, x).astype(x.dtype),
    "wrong gradient": lambda x: mx.stop_gradient(x) + 0.5 * (x - mx.stop_gradient(x)),
    "does not compile": raises,
}
DTYPES = (mx.float32, mx.float16, mx.bfloat16)


def embedding() -> bool:
    return self_test.passes("positional_embedding", mx.float32, None)


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_right_kernels_pass_without_a_word(metal: FakeMetal, dtype: mx.Dtype) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert attention_passes(16, dtype, None)
        assert self_test.passes("positional_embedding", dtype, None)


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("change", WRONG.values(), ids=WRONG)
def test_wrong_attention_fails_with_one_warning(
    metal: FakeMetal, change: Change, dtype: mx.Dtype
) -> None:
    metal.change = change
    with pytest.warns(KernelWarning, match=r"masked_attention .*D = 16") as caught:
        found = [attention_passes(16, dtype, None) for _ in range(2)]
    assert (found, len(caught)) == ([False, False], 1)


@pytest.mark.parametrize("passes", [lambda: attention_passes(16, mx.float32, None), embedding])
def test_a_step_of_tf32_is_too_much_for_float32(
    metal: FakeMetal, passes: Callable[[], bool]
) -> None:
    metal.change = lambda x: x * (1 + 2**-11)
    with pytest.warns(KernelWarning, match="largest error"):
        assert not passes()


def test_what_mlx_gives_has_no_say(metal: FakeMetal) -> None:
    attention_passes(16, mx.float32, None)
    embedding()
    assert metal.calls
    assert all(fused for _, fused in metal.calls)


@pytest.mark.parametrize("change", WRONG.values(), ids=WRONG)
def test_wrong_embedding_fails(metal: FakeMetal, change: Change) -> None:
    metal.change = change
    with pytest.warns(KernelWarning, match="positional_embedding"):
        assert not self_test.passes("positional_embedding", mx.float32, None)


def test_the_report_holds_what_a_person_needs(metal: FakeMetal, tmp_path: Path) -> None:
    metal.change = raises
    with pytest.warns(KernelWarning) as caught:
        attention_passes(16, mx.float16, None)
    (report,) = tmp_path.glob("self_test/report-*.txt")
    assert str(report) in str(caught[0].message)
    text = report.read_text()
    for part in ("Apple M1", "g13", "float16", "mlx: 0.", "source: ", "system: ", "simdgroup_half"):
        assert part in text


@pytest.mark.parametrize("wrong", [False, True])
def test_a_verdict_is_kept_for_later_processes(metal: FakeMetal, wrong: bool) -> None:
    metal.change = raises if wrong else None
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", KernelWarning)
        attention_passes(16, mx.float32, None)
        metal.new_process()
        assert attention_passes(16, mx.float32, None) is not wrong
    assert metal.calls == []


@pytest.mark.parametrize("what", ["chip", "source", "always", "corrupt"])
def test_a_verdict_that_does_not_hold_is_found_anew(
    metal: FakeMetal, what: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    metal.change = raises
    with pytest.warns(KernelWarning):
        attention_passes(16, mx.float32, None)
    metal.new_process()
    metal.change = None
    (kept,) = tmp_path.glob("self_test/*.json")
    if what == "chip":
        metal.chip = metal.chip | {"name": "Apple M2"}
    elif what == "source":
        metal.source += " "
    elif what == "always":
        monkeypatch.setattr(self_test, "_mode", "always")
    else:
        kept.write_text("{")
    assert attention_passes(16, mx.float32, None)
    assert metal.calls


def test_never_trusts_without_a_run(metal: FakeMetal, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(self_test, "_mode", "never")
    assert attention_passes(16, mx.float32, None)
    assert metal.calls == []


def test_without_a_folder_it_tests_and_goes_on(
    metal: FakeMetal, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").touch()
    monkeypatch.setenv("MLX_ESM_KERNELS_CACHE", str(tmp_path / "file"))
    assert attention_passes(16, mx.float32, None)
    metal.change = raises
    with pytest.warns(KernelWarning, match="please report this:\n"):
        assert not self_test.passes("positional_embedding", mx.float32, None)


def test_tuned_tiles_are_in_force_from_the_first_use(metal: FakeMetal) -> None:
    tiles.keep(16, mx.float32, {"fwd": (16, 64)})
    metal.tiles.clear()
    attention_passes(16, mx.float32, None)
    assert metal.tiles == {"fwd": (16, 64)}


def test_tiles_that_are_no_candidates_are_left_out(metal: FakeMetal) -> None:
    tiles.keep(16, mx.float32, {"fwd": (7, 7)})
    metal.tiles.clear()
    attention_passes(16, mx.float32, None)
    assert metal.tiles == {}


@pytest.mark.parametrize("passes", [lambda: attention_passes(16, mx.float32, None), embedding])
@pytest.mark.parametrize("how", [mx.compile, mx.grad, mx.vmap, mx.checkpoint])
def test_it_runs_inside_a_transformation(
    metal: FakeMetal, how: object, passes: Callable[[], bool]
) -> None:
    passed: list[bool] = []

    def function(x: mx.array) -> mx.array:
        passed.append(passes())
        return (x * x).sum()

    mx.eval(how(function)(mx.ones((3,))))  # type: ignore[operator]
    assert all(passed)
    assert passed
