"""How close is close enough: errors counted in units of rounding, against float64 truth.

The error of a result is max |result - truth| / unit over its elements, where the unit (see
rounding.py) is the size of one rounding error in that element. An op passes where its error is
at most FACTOR times that of the plain MLX reference on the same inputs in the same dtype, plus
SPARE units. Nothing is absolute: inputs a thousand times larger need no other tolerance, and an
element of a row of small values is held to its own size, not to that of the largest row. A
reference that adds up in half precision may be far off; it excuses no more than LIMIT units.
"""

from __future__ import annotations

from collections.abc import Mapping

import mlx.core as mx
import numpy as np
from truth import Array

FACTOR = 2.0
SPARE = 2.0
LIMIT = 16.0

# Where a type has no finer steps, no finer result can be asked for. float32 and bfloat16
# subnormals may be flushed to zero.
_SMALLEST_STEP = {mx.float32: 2.0**-126, mx.bfloat16: 2.0**-126, mx.float16: 2.0**-24}


def as_numpy(array: mx.array) -> Array:
    """The values of an MLX array, floating ones as float64 (bfloat16 has no numpy type)."""
    if mx.issubdtype(array.dtype, mx.floating):
        return np.array(array.astype(mx.float32)).astype(np.float64)
    return np.array(array)


def assert_close(
    name: str, actual: mx.array, reference: mx.array, truth: Array, unit: Array
) -> None:
    """Fails unless actual is as good an answer as reference, judged by truth.

    Args:
        name: what is compared, for the message.
        actual: the result under test.
        reference: the plain MLX result, same inputs and dtype.
        truth: float64, the result on the same (already rounded) inputs.
        unit: float64, the size of one rounding error in each element; where it is 0, actual must
            be exactly 0.
    """
    __tracebackhide__ = True
    for what, result in (("actual", actual), ("reference", reference)):
        assert result.shape == truth.shape, f"{name}: {what} {result.shape} not {truth.shape}"
    assert actual.dtype == reference.dtype, f"{name}: {actual.dtype} not {reference.dtype}"
    assert np.isfinite(truth).all(), f"{name}: truth is not finite"
    assert np.isfinite(unit).all(), f"{name}: unit is not finite"
    if truth.size == 0:
        return
    errors = _errors(name, as_numpy(actual), truth, unit, actual.dtype)
    expected = _errors(f"reference {name}", as_numpy(reference), truth, unit, actual.dtype)
    allowed = min(FACTOR * expected.max() + SPARE, LIMIT)
    worst = np.unravel_index(np.argmax(errors), errors.shape)
    assert errors[worst] <= allowed, (
        f"{name}{list(map(int, worst))} is {as_numpy(actual)[worst]:.9g}, truth "
        f"{truth[worst]:.9g}: off by {errors[worst]:.3g} units of rounding, allowed "
        f"{allowed:.3g}; {np.count_nonzero(errors > allowed)} of {errors.size} elements are off"
    )


def _errors(name: str, actual: Array, truth: Array, unit: Array, dtype: mx.Dtype) -> Array:
    """|actual - truth| / unit, 0 where all are 0; NaN, infinity and non-zero padding fail."""
    __tracebackhide__ = True
    assert np.isfinite(actual).all(), f"{name} holds NaN or infinity at {_first(actual)}"
    must_be_zero = unit == 0
    stray = must_be_zero & (actual != 0)
    assert not stray.any(), f"{name} is not exactly 0 at {list(map(int, np.argwhere(stray)[0]))}"
    unit = np.where(must_be_zero, 1, np.maximum(unit, _SMALLEST_STEP[dtype]))
    return np.asarray(np.abs(actual - truth) / unit)


def _first(array: Array) -> list[int]:
    return list(map(int, np.argwhere(~np.isfinite(array))[0]))


def assert_all_close(
    actual: Mapping[str, mx.array],
    reference: Mapping[str, mx.array],
    truth: Mapping[str, Array],
    unit: Mapping[str, Array],
) -> None:
    """assert_close for each named result; all four must have the same names."""
    __tracebackhide__ = True
    assert set(actual) == set(reference) == set(truth) == set(unit)
    for name in actual:
        assert_close(name, actual[name], reference[name], truth[name], unit[name])
