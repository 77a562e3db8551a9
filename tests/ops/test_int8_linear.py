"""int8_linear beside the very same rounding in the float64 truth, whose sums are exact."""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import mlx.core as mx
import numpy as np
import pytest
from arrays import DTYPES, LAYOUTS, arrange, mlx_dtype
from closeness import as_numpy
from hypothesis import given
from hypothesis import strategies as st
from truth import int8_linear as truth_of

from mlx_esm_kernels import _ext, ops

# Of a result that was rounded a few times in float32, and once more to its dtype.
TOLERANCE = {"float32": 2e-6, "float16": 1e-3, "bfloat16": 8e-3}


@dataclass(frozen=True)
class Int8Problem:
    """Inputs of a shape, and what is true of them."""

    rows: int
    inputs: int
    outputs: int
    dtype: str = "float32"
    bias: bool = True
    activation: str | None = None
    residual: bool = False
    layout: str = "contiguous"
    seed: int = 0

    @cached_property
    def arrays(self) -> dict[str, mx.array]:
        rng = np.random.default_rng(self.seed)
        x = arrange(rng.normal(size=(self.rows, self.inputs)), self.layout, self.dtype)
        weight = rng.integers(-128, 128, (self.outputs, self.inputs), dtype=np.int8)
        arrays = {"x": x, "weight": mx.array(weight)}
        arrays["scale"] = mx.array(rng.uniform(0.001, 0.01, self.outputs).astype(np.float32))
        if self.bias:
            arrays["bias"] = mx.array(rng.normal(size=self.outputs).astype(np.float32))
        if self.residual:
            shape = (self.rows, self.outputs)
            arrays["residual"] = mx.array(rng.normal(size=shape)).astype(mlx_dtype(self.dtype))
        return arrays

    def call(self, **changed: Any) -> mx.array:
        return ops.int8_linear(**{**self.arrays, **changed}, activation=self.activation)

    def truth(self) -> Any:
        return truth_of(
            **{name: as_numpy(a) for name, a in self.arrays.items()}, activation=self.activation
        )


def check(problem: Int8Problem) -> None:
    y, truth = problem.call(), problem.truth()
    assert y.dtype == mlx_dtype(problem.dtype)
    assert y.shape == truth.shape
    tolerance = TOLERANCE[problem.dtype]
    np.testing.assert_allclose(as_numpy(y), truth, rtol=tolerance, atol=2 * tolerance)


@given(
    rows=st.integers(1, 70),
    inputs=st.integers(1, 140),
    outputs=st.integers(1, 200),
    dtype=st.sampled_from(DTYPES),
    bias=st.booleans(),
    activation=st.sampled_from([None, "gelu"]),
    residual=st.booleans(),
    layout=st.sampled_from(LAYOUTS),
    seed=st.integers(0, 9),
)
def test_it_is_the_product_of_what_was_rounded(**given_problem: Any) -> None:
    check(Int8Problem(**given_problem))


@pytest.mark.parametrize("activation", [None, "gelu"])
@pytest.mark.parametrize(
    ("rows", "inputs", "outputs"), [(1, 1, 1), (500, 321, 1100), (193, 4, 64), (7, 1283, 65)]
)
def test_shapes_of_one_number_and_of_several_tasks(
    rows: int, inputs: int, outputs: int, activation: str | None
) -> None:
    check(Int8Problem(rows, inputs, outputs, activation=activation, residual=True))


def test_the_longest_sum_of_the_largest_products_is_exact() -> None:
    inputs = 65536
    weight = np.full((2, inputs), -128, np.int8)
    weight[1] = 127
    y = ops.int8_linear(mx.ones((1, inputs)), mx.array(weight), mx.ones((2,)))
    scale = np.float32(1) / np.float32(127)
    exact = np.array([[-128 * 127 * inputs, 127 * 127 * inputs]], np.float32) * scale
    np.testing.assert_array_equal(np.array(y), exact)


def test_a_weight_that_is_a_view_is_read_as_it_looks() -> None:
    problem = Int8Problem(5, 12, 9)
    weight = as_numpy(problem.arrays["weight"]).astype(np.int8)
    views = [
        mx.array(np.ascontiguousarray(weight.T)).T,
        mx.array(np.repeat(weight, 2, 1))[:, ::2],
        mx.array(np.ascontiguousarray(weight[::-1]))[::-1],
    ]
    for view in views:
        np.testing.assert_array_equal(np.array(problem.call(weight=view)), np.array(problem.call()))


@pytest.mark.parametrize("shape", [(), (1,), (2, 3), (2, 1, 4), (0,), (2, 0)])
def test_any_number_of_leading_axes(shape: tuple[int, ...]) -> None:
    problem = Int8Problem(max(1, int(np.prod(shape))), 20, 30)
    x = problem.arrays["x"][: int(np.prod(shape))].reshape(*shape, 20)
    y = problem.call(x=x)
    assert y.shape == (*shape, 30)
    np.testing.assert_array_equal(
        np.array(y).reshape(-1, 30), np.array(problem.call())[: int(np.prod(shape))]
    )


@pytest.mark.parametrize("bad", [float("nan"), float("inf"), -float("inf")])
def test_a_row_that_is_not_finite_is_nan_and_spoils_itself_alone(bad: float) -> None:
    problem = Int8Problem(9, 33, 70, activation="gelu")
    x = np.array(problem.arrays["x"])
    x[4, 32] = bad
    y, found = np.array(problem.call()), np.array(problem.call(x=mx.array(x)))
    assert np.isnan(found[4]).all()
    others = [row for row in range(9) if row != 4]
    np.testing.assert_array_equal(found[others], y[others])


@pytest.mark.parametrize("size", [0.0, 1e-45, 2.0**-101])
def test_a_row_of_almost_nothing_gives_the_bias(size: float) -> None:
    problem = Int8Problem(1, 8, 5)
    y = problem.call(x=mx.full((1, 8), size))
    np.testing.assert_array_equal(np.array(y)[0], np.array(problem.arrays["bias"]))


@pytest.mark.parametrize("size", [2.0**-99, 1e-10, 1e10, 3e38])
def test_rows_of_any_other_size_keep_seven_bits(size: float) -> None:
    x = np.random.default_rng(0).normal(size=(3, 40)).astype(np.float32)
    x = (x / np.abs(x).max() * size).astype(np.float32)
    weight, scale = np.eye(40, dtype=np.int8), np.ones(40, np.float32)
    y = np.array(ops.int8_linear(mx.array(x), mx.array(weight), mx.array(scale)))
    largest = np.abs(x).max(axis=1, keepdims=True)
    assert (np.abs(y - x) <= largest * 0.501 / 127).all()


def test_several_layers_of_one_x_are_those_layers() -> None:
    own = [Int8Problem(35, 20, width, seed=seed) for seed, width in enumerate((20, 7, 140))]
    x = own[0].arrays["x"]
    lists = [[p.arrays[name] for p in own] for name in ("weight", "scale", "bias")]
    for y, problem in zip(ops.int8_linears(x, *lists), own, strict=True):
        np.testing.assert_array_equal(np.array(y), np.array(problem.call(x=x)))


@pytest.mark.parametrize("activation", [None, "gelu"])
@pytest.mark.parametrize("dtype", DTYPES)
def test_the_composed_op_says_the_same(dtype: str, activation: str | None) -> None:
    problem = Int8Problem(9, 33, 70, dtype=dtype, activation=activation, residual=True)
    x = problem.arrays["x"]
    x[2], x[3, 3] = 0, float("nan")
    arrays = {**problem.arrays, "x": x}
    found = _ext.int8_linear_composed(**arrays, gelu=activation == "gelu")
    assert found.dtype == mlx_dtype(dtype)
    expected = as_numpy(problem.call(x=x))
    assert np.isnan(expected[3]).all()
    tolerance = 2 * TOLERANCE[dtype]
    np.testing.assert_allclose(as_numpy(found), expected, rtol=tolerance, atol=tolerance)


@pytest.mark.parametrize("mapped", ["x", "weight", "bias"])
def test_vmap_is_a_loop(mapped: str) -> None:
    problem = Int8Problem(6, 20, 30, residual=True)
    several = mx.stack([problem.arrays[mapped]] * 2 + [problem.arrays[mapped][::-1]])
    found = mx.vmap(lambda one: problem.call(**{mapped: one}))(several)
    expected = mx.stack([problem.call(**{mapped: one}) for one in several])
    np.testing.assert_array_equal(np.array(found), np.array(expected))


@pytest.mark.parametrize("op", ["ours", "composed"])
def test_a_gradient_is_refused(op: str) -> None:
    arrays = Int8Problem(3, 8, 5).arrays
    call = ops.int8_linear if op == "ours" else _ext.int8_linear_composed

    def loss(x: mx.array) -> mx.array:
        return call(**{**arrays, "x": x}).sum()

    with pytest.raises(ValueError, match=r"^\[int8_linear\] has no gradient: .*unquantised"):
        mx.eval(mx.grad(loss)(arrays["x"]))


def _changed(name: str) -> tuple[dict[str, Any], str]:
    return {
        "x": ({"x": mx.ones((3, 7))}, r"x must have shape \(\.\.\., I\) with I = 8 .*got \(3, 7\)"),
        "x_dtype": ({"x": mx.ones((3, 8), mx.int8)}, r"x must be float32.*got int8"),
        "weight": ({"weight": mx.ones((5, 8))}, r"weight must be int8; got float32"),
        "axes": (
            {"weight": mx.ones((8,), mx.int8)},
            r"weight must have shape \(O, I\).*got \(8,\)",
        ),
        "scale": ({"scale": mx.ones((4,))}, r"scale must have shape \(O,\) = \(5,\); got \(4,\)"),
        "bias": ({"bias": mx.ones((4,))}, r"bias must have shape \(O,\) = \(5,\); got \(4,\)"),
        "residual": ({"residual": mx.ones((5,))}, r"residual must have shape .*got \(5,\)"),
        "activation": ({"activation": "relu"}, r'activation must be None or "gelu"; got "relu"'),
        "deep": (
            {"x": mx.ones((1, 65537)), "weight": mx.ones((5, 65537), mx.int8)},
            r"I must be at most 65536.*got 65537",
        ),
    }[name]


@pytest.mark.parametrize(
    "name",
    ["x", "x_dtype", "weight", "axes", "scale", "bias", "residual", "activation", "deep"],
)
def test_operands_that_do_not_fit_are_named(name: str) -> None:
    changed, sentence = _changed(name)
    with pytest.raises(ValueError, match=r"^\[int8_linear\] " + sentence):
        ops.int8_linear(**{**Int8Problem(3, 8, 5).arrays, **changed})


def test_as_many_scales_and_biases_as_weights() -> None:
    a = Int8Problem(3, 8, 5).arrays
    with pytest.raises(ValueError, match=r"^\[int8_linear\] weights .*got 2, 1 and 0\."):
        ops.int8_linears(a["x"], [a["weight"]] * 2, [a["scale"]])


def digest() -> str:
    """A hash of results on which neither GELU nor the dtype leaves anything to the target."""
    shapes = [(500, 321, 1100), (64, 64, 64), (1, 7, 3)]
    found = [np.array(Int8Problem(*shape, residual=True).call()).tobytes() for shape in shapes]
    return hashlib.sha256(b"".join(found)).hexdigest()


@pytest.mark.slow
def test_neither_threads_nor_the_instruction_set_change_a_bit() -> None:
    expected = digest()
    code = "import test_int8_linear as t; print(t.digest())"
    path = os.pathsep.join(path for path in [os.path.dirname(__file__), *sys.path] if path)
    tried = [{"NUM_THREADS": threads} for threads in ("1", "2")]
    targets = ["baseline", "avx2", "avx512", "avx512_vnni", "avx512_amx"]
    targets += ["neon_dotprod", "neon_bf16"]
    tried += [{"CPU_TARGET": target} for target in targets]
    agreed = 0
    for variables in tried:
        variables = {f"MLX_ESM_KERNELS_{name}": value for name, value in variables.items()}
        done = subprocess.run(
            [sys.executable, "-c", code],
            env=os.environ | {"PYTHONPATH": path} | variables,
            capture_output=True,
            text=True,
            check=False,
        )
        if "on this machine; got" in done.stderr:
            continue
        assert done.returncode == 0, done.stderr
        assert done.stdout.strip() == expected, variables
        agreed += 1
    assert agreed >= 3  # both numbers of threads, and the baseline
