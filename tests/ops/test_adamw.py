"""A step of AdamW on all parameters at once, against float64 numpy and against MLX's optimizer."""

from __future__ import annotations

import os
import subprocess
import sys
from typing import Any

import mlx.core as mx
import numpy as np
import pytest
from closeness import as_numpy
from hypothesis import given
from hypothesis import strategies as st
from mlx.optimizers import AdamW
from numpy.typing import NDArray

from mlx_esm_kernels import ops
from mlx_esm_kernels.ops.truth import adamw

Array = NDArray[np.float64]
BETAS = {"beta_1": 0.8, "beta_2": 0.98}
OPTIONS = BETAS | {"weight_decay": 0.3, "clip_norm": 1.0}

# Around the vectors, chunks and tasks of the CPU code.
SHAPES = ((), (1,), (7,), (17, 3), (33, 64), (2, 3, 5), (0, 4), (16_384,), (300, 301))


def random_lists(shapes: list[tuple[int, ...]], seed: int) -> dict[str, list[mx.array]]:
    rng = np.random.default_rng(seed)
    made = {n: [mx.array(rng.normal(size=s), mx.float32) for s in shapes] for n in "wgm"}
    made["v"] = [mx.array(rng.uniform(0, 1, s), mx.float32) for s in shapes]
    return made


def rates(rate: float, t: int, epsilon: float = 1e-8) -> mx.array:
    kept_1, kept_2 = 1 - BETAS["beta_1"] ** t, (1 - BETAS["beta_2"] ** t) ** 0.5
    return mx.array([rate, rate * kept_2 / kept_1, epsilon * kept_2])


def step(x: dict[str, list[mx.array]], rates: mx.array, **options: Any) -> Any:
    return ops.adamw(x["w"], x["g"], x["m"], x["v"], rates, **(OPTIONS | options))


def in_float64(
    x: dict[str, list[mx.array]], rate: float, t: int, options: dict[str, float]
) -> tuple[dict[str, list[Array]], float]:
    """The algorithm as it is printed, all parameters under one norm."""
    wide = {name: [as_numpy(a) for a in arrays] for name, arrays in x.items()}
    norm = float(np.sqrt(sum((g**2).sum() for g in wide["g"])))
    scale = min(1, options["clip_norm"] / norm) if norm else 1
    clipped = wide | {"g": [g * scale for g in wide["g"]]}
    free: dict[str, Any] = options | {"clip_norm": np.inf}
    new: dict[str, list[Array]] = {"w": [], "m": [], "v": []}
    for arrays in zip(*clipped.values(), strict=True):
        found = adamw(dict(zip(clipped, arrays, strict=True)), rate=rate, t=t, **free)
        for name in new:
            new[name].append(found[name])
    return new, norm


def check(x: dict[str, list[mx.array]], rate: float, t: int, **options: Any) -> None:
    w, m, v, norm = step(x, rates(rate, t), **options)
    numbers = {k: o for k, o in (OPTIONS | options).items() if k != "composed"}
    expected, true_norm = in_float64(x, rate, t, numbers)
    # MLX sums up squares one after the other, ours by lanes and chunks.
    tolerance = 1e-4 if options.get("composed") else 2e-6
    assert norm.item() == pytest.approx(true_norm, rel=tolerance)
    for name, got in (("w", w), ("m", m), ("v", v)):
        for a, b in zip(got, expected[name], strict=True):
            np.testing.assert_allclose(np.array(a), b, rtol=tolerance, atol=2e-6, err_msg=name)


@given(
    shapes=st.lists(st.sampled_from(SHAPES), min_size=1, max_size=6),
    rate=st.floats(0, 0.1),
    t=st.integers(1, 1000),
    clip_norm=st.sampled_from((1e-3, 1.0, 1e9)),
    weight_decay=st.sampled_from((0.0, 0.01, 0.5)),
    composed=st.booleans(),
    seed=st.integers(0, 2**32 - 1),
)
def test_a_step_is_the_algorithms_in_float64(
    shapes: list[tuple[int, ...]], rate: float, t: int, seed: int, **options: Any
) -> None:
    check(random_lists(shapes, seed), rate, t, **options)


def test_many_steps_are_those_of_mlx() -> None:
    """MLX's own decays every parameter, so these have two axes."""
    shapes = [(5, 7), (100, 200)]
    x = random_lists(shapes, 0)
    x["m"], x["v"] = ([mx.zeros(s) for s in shapes] for _ in range(2))
    optimizer = AdamW(1e-2, [0.8, 0.98], 1e-8, weight_decay=0.3, bias_correction=True)
    theirs: Any = dict(enumerate(x["w"]))
    for t in range(1, 11):
        x["g"] = random_lists(shapes, t)["g"]
        theirs = optimizer.apply_gradients(dict(enumerate(x["g"])), theirs)
        x["w"], x["m"], x["v"], _ = step(x, rates(1e-2, t), clip_norm=1e9)
        mx.eval(x, theirs)
    for i, w in enumerate(x["w"]):
        np.testing.assert_allclose(np.array(w), np.array(theirs[i]), rtol=1e-4, atol=2e-5)


def test_any_strides() -> None:
    x = random_lists([(6, 8)], 3)
    strided = {name: [mx.contiguous(a.T).T for a in arrays] for name, arrays in x.items()}
    for a, b in zip(step(x, rates(0.1, 1))[:3], step(strided, rates(0.1, 1))[:3], strict=True):
        assert mx.array_equal(a[0], b[0])


@pytest.mark.parametrize("dtype", [mx.float16, mx.bfloat16])
def test_half_precision_stays_half_precision(dtype: mx.Dtype) -> None:
    x = {n: [a.astype(dtype) for a in arrays] for n, arrays in random_lists([(9, 8)], 1).items()}
    w, m, v, _ = step(x, rates(0.1, 2))
    expected, _ = in_float64(x, 0.1, 2, OPTIONS)
    for name, got in (("w", w), ("m", m), ("v", v)):
        assert got[0].dtype == dtype
        np.testing.assert_allclose(as_numpy(got[0]), expected[name][0], rtol=2e-2, atol=2e-2)


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_a_gradient_that_is_no_number_shows_in_the_norm(bad: float) -> None:
    x = random_lists([(3, 4), (5,)], 0)
    x["g"][1] = mx.full((5,), bad)
    w, _, _, norm = step(x, rates(0.1, 1))
    assert not np.isfinite(norm.item())
    assert not np.isfinite(np.array(w[1])).any()


def test_compiled_it_is_the_same_step_with_other_rates() -> None:
    x = random_lists([(33, 64), (7,)], 5)

    @mx.compile
    def compiled(x: dict[str, list[mx.array]], rates: mx.array) -> Any:
        return step(x, rates)

    for t in (1, 2):
        plain, other = step(x, rates(0.1, t)), compiled(x, rates(0.1, t))
        for a, b in zip(plain[:3], other[:3], strict=True):
            assert all(mx.array_equal(p, q) for p, q in zip(a, b, strict=True))
        assert mx.array_equal(plain[3], other[3])


def test_results_do_not_depend_on_the_number_of_threads() -> None:
    script = (
        "import numpy as np; import test_adamw as t\n"
        "x = t.random_lists([(300, 301), (7,), (333,), (500, 501)], 0)\n"
        "w, m, v, norm = t.step(x, t.rates(0.1, 1))\n"
        "print(hash(b''.join(np.array(a).tobytes() for a in [*w, *m, *v, norm])))\n"
    )
    found = {
        subprocess.run(
            [sys.executable, "-c", script],
            env=os.environ
            | {
                "MLX_ESM_KERNELS_NUM_THREADS": threads,
                "PYTHONHASHSEED": "0",
                "PYTHONPATH": os.pathsep.join(sys.path),
            },
            capture_output=True,
            text=True,
            check=True,
        ).stdout
        for threads in ("1", "2", "3")
    }
    assert len(found) == 1


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"g": []}, r"gradients must be as many as weights, 1; got 0\."),
        ({"m": [mx.ones((3, 5))]}, r"m\[0\] must have shape of its weight = \(3, 4\); got \(3, 5"),
        ({"v": [mx.ones((3, 4), mx.int32)]}, r"v\[0\] must be float32.*got int32\."),
    ],
)
def test_lists_that_do_not_fit_are_refused(changed: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=rf"^\[adamw\] {message}"):
        step(random_lists([(3, 4)], 0) | changed, rates(0.1, 1))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"beta_1": 1.0}, r"beta_1 must be at least 0 and below 1; got 1\.0+\."),
        ({"beta_2": -0.5}, r"beta_2 must be at least 0 and below 1; got -0\.5"),
        ({"clip_norm": 0.0}, r"clip_norm must be above 0; got 0\.0+\."),
        ({"clip_norm": float("nan")}, r"clip_norm must be above 0; got nan\."),
    ],
)
def test_options_out_of_range_are_refused(options: dict[str, float], message: str) -> None:
    with pytest.raises(ValueError, match=rf"^\[adamw\] {message}"):
        step(random_lists([(3, 4)], 0), rates(0.1, 1), **options)


def test_rates_of_another_shape_are_refused() -> None:
    with pytest.raises(ValueError, match=r"^\[adamw\] rates must have shape \(3,\).*got \(2,\)"):
        step(random_lists([(3, 4)], 0), mx.ones((2,)))


def test_a_step_has_no_gradient_and_no_vmap() -> None:
    x = random_lists([(3, 4)], 0)

    def total(w: mx.array) -> mx.array:
        moved: mx.array = step(x | {"w": [w]}, rates(0.1, 1))[0][0].sum()
        return moved

    with pytest.raises(ValueError, match=r"^\[adamw\] a step has no derivative"):
        mx.grad(total)(x["w"][0])
    with pytest.raises(ValueError, match=r"^\[adamw\] a step cannot be vmapped"):
        mx.vmap(total)(mx.stack(x["w"] * 2))
