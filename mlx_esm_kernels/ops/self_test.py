"""Our kernels are checked on the user's own GPU before their first result is handed out.

A variant (op, head dim, dtype) is compared with MLX's own ops on a small odd-sized case, forward
and gradients. The verdict is kept in the cache folder. Where a kernel is wrong or does not run,
MLX's path serves, and one warning names a report.
"""

from __future__ import annotations

import os
import threading
import warnings
from collections.abc import Callable, Iterator
from typing import Any

import mlx.core as mx
import numpy as np

from .. import _ext
from . import device_cache, tiles

SELF_TEST_VARIABLE = "MLX_ESM_KERNELS_SELF_TEST"
MODES = ("auto", "always", "never")
StreamLike = mx.Stream | mx.Device | None
# An output may be as far from float32 on the CPU as FACTOR times MLX's in the same dtype, and so
# many steps of the dtype, at the size of the largest element, farther.
FACTOR = 2.0
SPARE_STEPS = {mx.float32: 64.0, mx.float16: 4.0, mx.bfloat16: 2.0}
BATCH, HEADS, LENGTH = 2, 3, 77
WIDTH, ODD_WIDTH = 40, 39  # of tables that are read by vectors, and that are not
VOCABULARY, PADDING, MASK = 33, 1, 32


class KernelWarning(UserWarning):
    """A kernel of ours is not right on this machine; MLX's own ops serve instead."""


def mode_of_environment() -> str:
    """What MLX_ESM_KERNELS_SELF_TEST asks for; auto where it is not set.

    Raises:
        ValueError: it is not auto, always or never.
    """
    value = os.environ.get(SELF_TEST_VARIABLE) or "auto"
    if value not in MODES:
        raise ValueError(
            f"[self_test] {SELF_TEST_VARIABLE} must be auto, always or never; got {value}."
        )
    return value


_mode = mode_of_environment()
_verdicts: dict[tuple[str, int, mx.Dtype], bool] = {}
_lock = threading.Lock()


def attention_passes(head_dim: int, dtype: mx.Dtype, stream: StreamLike) -> bool:
    """Whether our attention is right here for this D and dtype; tuned tiles are put in force."""
    variant = ("masked_attention", head_dim, dtype)
    known = _verdicts.get(variant)
    return _settle(variant, stream) if known is None else known


def attention_problem(head_dim: int, dtype: mx.Dtype, stream: StreamLike) -> str:
    """What is wrong here with our attention and the tiles in force; "" if nothing is."""
    return _problem("masked_attention", head_dim, dtype, stream)


def embedding_passes(dtype: mx.Dtype, stream: StreamLike) -> bool:
    """Whether our positional embedding is right here for this dtype."""
    variant = ("positional_embedding", 0, dtype)
    known = _verdicts.get(variant)
    return _settle(variant, stream) if known is None else known


def _settle(variant: tuple[str, int, mx.Dtype], stream: StreamLike) -> bool:
    """The verdict on a variant: of this process, else of the cache folder, else of a test now."""
    with _lock:
        if variant not in _verdicts:
            key, problem = _verdict(variant, stream)
            if problem:
                _warn(key, problem)
            _verdicts[variant] = not problem
        return _verdicts[variant]


def _verdict(variant: tuple[str, int, mx.Dtype], stream: StreamLike) -> tuple[dict[str, Any], str]:
    """What the variant's verdict is kept under, and what is wrong with it; "" if nothing is."""
    op, head_dim, dtype = variant
    key: dict[str, Any] = {"op": op, "head_dim": head_dim, "dtype": str(dtype)}
    try:
        if op == "masked_attention":
            tiles.load(head_dim, dtype)
            key |= device_cache.circumstances(_ext.attention_sources(head_dim, dtype))
        else:
            key |= device_cache.circumstances(_ext.embedding_sources(dtype))
        if _mode == "never":
            return key, ""
        known = device_cache.read("self_test", key) if _mode == "auto" else None
        if known and isinstance(known.get("problem"), str):
            return key, known["problem"]
        if known and "tester" in known and not _is_running(known["tester"]):
            problem = "a process ended while it tested this kernel"
        else:
            problem = _problem_marked(key, variant, stream)
    except Exception as error:  # whatever it is, the user's call must go on
        problem = _raised(error)
    device_cache.write("self_test", key, {"problem": problem})
    return key, problem


def _problem_marked(
    key: dict[str, Any], variant: tuple[str, int, mx.Dtype], stream: StreamLike
) -> str:
    """What is wrong with the variant; a mark is kept, as a GPU's fault may end the process."""
    device_cache.write("self_test", key, {"tester": os.getpid()})
    try:
        return _problem(*variant, stream)
    except BaseException:  # an interrupt says nothing of the kernel
        device_cache.remove("self_test", key)
        raise


def _is_running(pid: Any) -> bool:
    """Whether it is another process that runs now; pids come again, in a container at once."""
    try:
        if pid == os.getpid():
            return False
        os.kill(pid, 0)
    except PermissionError:
        return True
    except (OSError, TypeError, OverflowError):
        return False
    return True


def _problem(op: str, head_dim: int, dtype: mx.Dtype, stream: StreamLike) -> str:
    """What is wrong with the kernels of the op as they are now, their errors included."""
    try:
        return _compare(op, head_dim, dtype, stream)
    except Exception as error:
        return _raised(error)


def _raised(error: Exception) -> str:
    return f"it raised {type(error).__name__}: {error}"


def _compare(op: str, head_dim: int, dtype: mx.Dtype, stream: StreamLike) -> str:
    """What differs between ours and MLX's in the first case that differs; "" if none does."""
    cases = _attention_cases(head_dim) if op == "masked_attention" else _embedding_cases()
    for case, names, inputs, cotangent, call in cases:
        typed, dout = [x.astype(dtype) for x in inputs], cotangent.astype(dtype)
        exact = [x.astype(mx.float32) for x in typed]
        true = _results(call, exact, dout.astype(mx.float32), fused=False, stream=mx.cpu)
        usual = _results(call, typed, dout, fused=False, stream=stream)
        ours = _results(call, typed, dout, fused=True, stream=stream)
        for i, name in enumerate(names):
            problem = _difference(ours[i], usual[i], true[i], dtype)
            if problem:
                return f"{name} of the {case} case: {problem}"
    return ""


def _results(
    call: Callable[..., mx.array], inputs: list[mx.array], cotangent: mx.array, **options: Any
) -> list[Any]:
    """Output and gradients as float32 numpy arrays."""
    outputs, gradients = mx.vjp(lambda *x: call(*x, **options), inputs, [cotangent])
    found = [x.astype(mx.float32) for x in (*outputs, *gradients)]
    mx.eval(found)  # np.array alone may lose the error of a kernel that does not run
    return [np.array(x) for x in found]


def _difference(ours: Any, usual: Any, true: Any, dtype: mx.Dtype) -> str:
    if not np.isfinite(ours).all():
        return "it holds NaN or infinity"
    if ((true == 0) & (ours != 0)).any():
        return "what must be exactly 0 is not"
    size = float(np.abs(true).max())
    step = SPARE_STEPS[dtype] * float(mx.finfo(dtype).eps) * size
    allowed = FACTOR * float(np.abs(usual - true).max()) + step
    error = float(np.abs(ours - true).max())
    if error <= allowed:
        return ""
    return f"largest error {error:.3g}, tolerance {allowed:.3g}, largest value {size:.3g}"


Case = tuple[str, tuple[str, ...], list[mx.array], mx.array, Callable[..., mx.array]]


def _segments() -> Any:
    """(BATCH, LENGTH) ids: two proteins and a tail of padding; one protein with holes."""
    ids = np.zeros((BATCH, LENGTH), np.int32)
    ids[0, :31], ids[0, 31:70] = 1, 2
    ids[1] = np.arange(LENGTH) % 13 != 5
    return ids


def _attention_cases(head_dim: int) -> Iterator[Case]:
    """With and without segments, biases, and rows that are read by vectors."""
    rng = np.random.default_rng(0)
    shape = (BATCH, HEADS, LENGTH, head_dim)
    ids = _segments()
    dense = [rng.standard_normal(shape, np.float32) for _ in range(4)]
    padded = [np.where((ids == 0)[:, None, :, None], np.float32("nan"), x) for x in dense]
    biases = [mx.array(rng.standard_normal((HEADS, head_dim), np.float32)) for _ in range(2)]
    names = ("o", "dq", "dk", "dv", "dbias_k", "dbias_v")

    def packed(*x: mx.array, **options: Any) -> mx.array:
        return _ext.masked_attention(
            *x[:3], segment_ids=mx.array(ids), bias_k=x[3], bias_v=x[4], **options
        )

    def plain(*x: mx.array, **options: Any) -> mx.array:
        return _ext.masked_attention(*x, segment_ids=mx.array(ids), **options)

    def transposed(*x: mx.array, **options: Any) -> mx.array:
        return plain(*(y.swapaxes(2, 3) for y in x), **options)

    q, k, v, do = map(mx.array, padded)
    yield "packed", names, [q, k, v, *biases], do, packed
    yield "unbiased", names[:4], [q, k, v], do, plain
    columns = [mx.array(np.ascontiguousarray(x.swapaxes(2, 3))) for x in padded[:3]]
    yield "transposed", names[:4], columns, do, transposed
    q, k, v, do = map(mx.array, dense)
    yield "dense", names[:4], [q, k, v], do, _ext.masked_attention


def _embedding_cases() -> Iterator[Case]:
    """With and without segments, token dropout, and rows that are read by vectors."""
    rng = np.random.default_rng(0)
    ids = _segments()
    tokens = rng.integers(4, MASK, ids.shape)
    tokens[rng.random(ids.shape) < 0.2] = MASK
    tables = [mx.array(rng.standard_normal((n, WIDTH), np.float32)) for n in (VOCABULARY, 90)]
    dx = rng.standard_normal((*ids.shape, WIDTH), np.float32)
    names = ("x", "dtoken_table", "dposition_table")
    options: dict[str, Any] = {"padding_idx": PADDING}

    def packed(table: mx.array, positions: mx.array, **where: Any) -> mx.array:
        given = options | {"mask_idx": MASK, "segment_ids": mx.array(ids)} | where
        return _ext.positional_embedding(mx.array(tokens), table, positions, **given)

    def plain(table: mx.array, positions: mx.array, **where: Any) -> mx.array:
        given = options | where
        return _ext.positional_embedding(mx.array(tokens), table, positions, **given)

    poisoned = np.where((ids == 0)[..., None], np.float32("nan"), dx)
    yield "packed", names, tables, mx.array(poisoned), packed
    narrow = [table[:, :ODD_WIDTH] for table in tables]
    yield "plain", names, narrow, mx.array(dx[..., :ODD_WIDTH]), plain


def _warn(key: dict[str, Any], problem: str) -> None:
    """Write the report, and say once where it is."""
    report = "".join(f"{name}: {value}\n" for name, value in {**key, "problem": problem}.items())
    path = device_cache.put("self_test", f"report-{device_cache.name_of(key)}.txt", report)
    where = f"please report {path}" if path else "please report this:\n" + report.rstrip()
    variant = f"{key['dtype']}" + (f", D = {key['head_dim']}" if key["head_dim"] else "")
    brief = problem.splitlines()[0]  # of a compiler's many
    warnings.warn(
        f"The Metal kernel of {key['op']} ({variant}) is not right on this machine; MLX's own "
        f"ops serve instead, so that results are right but slower. {brief}; {where}",
        KernelWarning,
        stacklevel=6,
    )
