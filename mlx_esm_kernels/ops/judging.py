"""An op's results against float64 truth, in units of rounding: what is right on a device.

A unit is the size of one rounding error in an element (rounding.py). Our kernels and CPU ops
accumulate in float32 whatever the dtype, and round once at the end. What MLX's own ops give has no
say: on some chips their float32 products are TF32, and in 16 bits they round in between.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import mlx.core as mx
import numpy as np

from .. import _ext
from .truth import Array

StreamLike = mx.Stream | mx.Device | None
# In units. Most of a unit is a sum of the sizes of all terms, so that errors stay far below one. In
# the cases of cases.py, D from 8 to 128, the emulated kernels and the CPU ops reach 0.82 in float32
# and 0.5 in 16 bits, which is the one rounding at the end and the same on every device. The rest of
# each limit is for Apple's products, fast exp2 and log2.
LIMITS = {"float32": 4.0, "float16": 1.5, "bfloat16": 1.5}
# Through a difference of terms, whose sizes the unit adds: they reach 0.23 in float32, else 0.45.
LIMIT_OF_SCORES = 1.5
_OF_SCORES = ("dq", "dk", "dbias_k")
# Where a dtype has no finer steps. Subnormals of float32 and bfloat16 may be flushed to zero.
_SMALLEST_STEP = {"float32": 2.0**-126, "bfloat16": 2.0**-126, "float16": 2.0**-24}


@dataclass(frozen=True)
class Case:
    """One call of an op, its gradients, and the truth of both.

    Attributes:
        name: for reports.
        names: of the output and of the gradient of each input; of the output alone where the op has
            no gradient.
        inputs: those with a gradient, or all of an op that has none; float64, exact in every dtype.
        cotangent: of the shape of the output.
        call: the op of our own of these inputs, in one dtype, on `stream`.
        true: by name; NaN where the result must be NaN.
        units: of a dtype, by name; 0 where the result must be exactly 0, infinite where it may be
            anything.
        strided: the inputs and the cotangent of more than two axes have no unit stride.
        in_parts: launches are cut into as many parts as they can be.
    """

    name: str
    names: tuple[str, ...]
    inputs: tuple[Array, ...]
    cotangent: Array
    call: Callable[..., mx.array]
    true: dict[str, Array]
    units: Callable[[str], dict[str, Array]]
    strided: bool = False
    in_parts: bool = False


@dataclass(frozen=True)
class Finding:
    """How far one result of a case is from the truth, where it is worst.

    Attributes:
        case, name: of the case and of the result.
        error, limit: of the element that is worst beside its limit; equal to NaN and 0 where the
            result holds no number, or another than the 0 that it must be.
        problem: what is wrong, as the end of a sentence; "" if nothing is.
    """

    case: str
    name: str
    error: float
    limit: float
    problem: str


def name_of_dtype(dtype: mx.Dtype) -> str:
    """float32, float16 or bfloat16."""
    return str(dtype).rsplit(".", 1)[-1]


def findings(case: Case, dtype: mx.Dtype, stream: StreamLike) -> Iterator[Finding]:
    """A finding for each result of the case, which is run in this dtype on this stream."""
    results = _results(case, dtype, stream)
    units = case.units(name_of_dtype(dtype))
    for name, result in zip(case.names, results, strict=True):
        yield _finding(case, name, result, units[name], name_of_dtype(dtype))


def _results(case: Case, dtype: mx.Dtype, stream: StreamLike) -> list[Array]:
    """Output and gradients in float64."""
    inputs = [_typed(x, dtype, case.strided) for x in case.inputs]
    if len(case.names) == 1:
        found = [case.call(*inputs, stream=stream)]
    else:
        cotangent = _typed(case.cotangent, dtype, case.strided)
        outputs, gradients = mx.vjp(lambda *x: case.call(*x, stream=stream), inputs, [cotangent])
        found = [*outputs, *gradients]
    found = [x.astype(mx.float32) for x in found]
    try:
        if case.in_parts:  # of other threads' launches too, to which it does no harm
            _ext.set_launch_products(1)
        mx.eval(found)  # np.array alone may lose the error of a kernel that does not run
    finally:
        if case.in_parts:
            _ext.set_launch_products(None)
    return [np.array(x).astype(np.float64) for x in found]


def _typed(x: Array, dtype: mx.Dtype, strided: bool) -> mx.array:
    if not strided or x.ndim < 3:
        return mx.array(x.astype(np.float32)).astype(dtype)
    columns = np.ascontiguousarray(x.swapaxes(-1, -2), np.float32)
    return mx.array(columns).astype(dtype).swapaxes(-1, -2)


def _finding(case: Case, name: str, result: Array, unit: Array, dtype: str) -> Finding:
    true = case.true[name]
    free, no_number = np.isinf(unit), np.isnan(true)
    if not np.isnan(result[no_number & ~free]).all():
        return _wrong(case, name, "what must be NaN is not")
    judged = ~free & ~no_number
    result, true, unit = result[judged], true[judged], unit[judged]
    if not np.isfinite(result).all():
        return _wrong(case, name, "it holds NaN or infinity")
    if result[unit == 0].any():
        return _wrong(case, name, "what must be exactly 0 is not")
    if not unit.any():
        return Finding(case.name, name, 0.0, 0.0, "")
    factor = LIMIT_OF_SCORES if name in _OF_SCORES else LIMITS[dtype]
    limit = factor * np.maximum(unit, _SMALLEST_STEP[dtype])
    error = np.abs(result - true)
    worst = int(np.argmax(error / limit))
    problem = ""
    if error[worst] > limit[worst]:
        problem = (
            f"largest error {error[worst]:.3g}, limit {limit[worst]:.3g}, where the value is "
            f"{true[worst]:.6g}; {np.count_nonzero(error > limit)} of {error.size} are off"
        )
    return Finding(case.name, name, float(error[worst]), float(limit[worst]), problem)


def _wrong(case: Case, name: str, problem: str) -> Finding:
    return Finding(case.name, name, float("nan"), 0.0, problem)
