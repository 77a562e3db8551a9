"""rotary, forward and gradients, against the reference and float64 numpy."""

from __future__ import annotations

import mlx.core as mx
import numpy as np
import pytest
from arrays import DTYPES, LAYOUTS
from hypothesis import given
from problems import check
from rotary_problem import RotaryProblem
from strategies import rotary_problems

from mlx_esm_kernels import ops


@given(problem=rotary_problems())
def test_pairs_are_turned_whatever_the_input(problem: RotaryProblem) -> None:
    check(problem)


@pytest.mark.parametrize("dtype", DTYPES)
def test_every_even_head_dim(dtype: str) -> None:
    for dim in (*range(2, 70, 2), 128, 130, 256, 514):
        check(RotaryProblem((2, 3, 5, dim), dtype=dtype, layouts=("permuted",) * 3))


@pytest.mark.parametrize("layout", [*LAYOUTS, "constant"])
@pytest.mark.parametrize("which", range(3), ids=["x", "angles", "cotangent"])
def test_every_layout(which: int, layout: str) -> None:
    layouts = ["permuted"] * 3
    layouts[which] = layout
    check(RotaryProblem((2, 3, 25, 24), layouts=tuple(layouts)))


def test_turning_back_gives_what_was_turned() -> None:
    x = mx.random.normal((2, 3, 50, 16), key=mx.random.key(0))
    angles = ops.rotary_angles(mx.ones((2, 50), mx.int32), 16)
    turned = ops.rotary(x, angles)
    _, (back, _) = mx.vjp(ops.rotary, [x, angles], [turned])
    np.testing.assert_allclose(np.array(back), np.array(x), atol=2e-6)
    assert not mx.allclose(turned, x, atol=0.1)


@pytest.mark.parametrize("dim", [6, 16, 24])
def test_a_head_that_is_no_number_does_nothing_to_its_neighbours(dim: int) -> None:
    x = np.ones((1, 3, 4, dim), np.float32)
    x[0, 1, 2] = np.nan
    x = mx.array(x.swapaxes(1, 2).copy()).swapaxes(1, 2)  # heads side by side
    found = np.array(ops.rotary(x, ops.rotary_angles(mx.ones((1, 4), mx.int32), dim)))
    expected = np.zeros(found.shape, bool)
    expected[0, 1, 2] = True
    np.testing.assert_array_equal(np.isnan(found), expected)


@pytest.mark.parametrize("dtype", DTYPES)
def test_a_protein_has_the_same_bits_alone_packed_and_padded(dtype: str) -> None:
    q = mx.random.normal((1, 4, 7, 24), key=mx.random.key(1)).astype(getattr(mx, dtype))
    alone = ops.rotary(q, ops.rotary_angles(mx.ones((1, 7), mx.int32), 24))
    ids = mx.array([[5] * 11 + [6] * 7 + [0] * 4])
    row = mx.concatenate([q[:, :, :1]] * 11 + [q] + [q[:, :, :1]] * 4, axis=2)
    packed = ops.rotary(row, ops.rotary_angles(ids, 24))[:, :, 11:18]
    assert mx.array_equal(packed, alone)


def test_nothing_to_turn() -> None:
    for shape in ((0, 2, 3, 4), (1, 0, 3, 4), (1, 2, 0, 4), (1, 2, 3, 0)):
        batch, _, length, dim = shape
        assert ops.rotary(mx.zeros(shape), mx.zeros((batch, length, dim))).shape == shape


WRONG = {
    "x must have shape (B, H, L, D)": ((2, 3, 4), (2, 3, 4), mx.float32, mx.float32),
    "D must be even": ((1, 2, 3, 5), (1, 3, 5), mx.float32, mx.float32),
    "angles must have shape (B, L, D) = (1, 3, 4)": (
        *((1, 2, 3, 4), (1, 3, 2)),
        *(mx.float32, mx.float32),
    ),
    "angles must be float32": ((1, 2, 3, 4), (1, 3, 4), mx.float16, mx.float16),
    "x must be": ((1, 2, 3, 4), (1, 3, 4), mx.int32, mx.float32),
}


@pytest.mark.parametrize("said", WRONG)
def test_what_does_not_fit_is_refused_in_a_sentence(said: str) -> None:
    x_shape, angles_shape, x_dtype, angles_dtype = WRONG[said]
    with pytest.raises(ValueError, match=r"^\[rotary\] .*\.$") as caught:
        ops.rotary(mx.zeros(x_shape, x_dtype), mx.zeros(angles_shape, angles_dtype))
    assert said in str(caught.value)


def test_angles_of_what_has_no_places_are_refused() -> None:
    with pytest.raises(ValueError, match=r"^\[rotary_angles\] segment_ids must have shape"):
        ops.rotary_angles(mx.ones(3, mx.int32), 4)
    with pytest.raises(ValueError, match=r"^\[rotary_angles\] dim must be even"):
        ops.rotary_angles(mx.ones((1, 3), mx.int32), 5)
