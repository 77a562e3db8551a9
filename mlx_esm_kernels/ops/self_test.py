"""Our kernels are checked on the user's own GPU before their first result is handed out.

A variant (op, head dim, dtype) is compared with float64 truth in the cases of cases.py, forward
and gradients. The verdict is kept in the cache folder. Where a kernel is wrong or does not run,
MLX's path serves, and one warning names a report.
"""

from __future__ import annotations

import os
import threading
import warnings
from typing import Any

import mlx.core as mx

from .. import _ext
from . import device_cache, tiles
from .cases import attention_cases, embedding_cases, rotary_cases
from .judging import StreamLike, findings

SELF_TEST_VARIABLE = "MLX_ESM_KERNELS_SELF_TEST"
MODES = ("auto", "always", "never")


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


def problem(op: str, dtype: mx.Dtype, stream: StreamLike) -> str:
    """What is wrong here with an op of ours other than attention; "" if nothing is."""
    return _problem(op, 0, dtype, stream)


def passes(op: str, dtype: mx.Dtype, stream: StreamLike) -> bool:
    """Whether an op of ours other than attention is right here for this dtype."""
    variant = (op, 0, dtype)
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
            sources = _ext.attention_sources(head_dim, dtype)
        elif op == "positional_embedding":
            sources = _ext.embedding_sources(dtype)
        else:
            sources = _ext.rotary_sources(dtype)
        key |= device_cache.circumstances(sources)
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
    """What is wrong with the first result that is; "" if none is."""
    by_op = {"positional_embedding": embedding_cases, "rotary": rotary_cases}
    cases = attention_cases(head_dim) if op == "masked_attention" else by_op[op]()
    for case in cases:
        for finding in findings(case, dtype, stream):
            if finding.problem:
                return f"{finding.name} of the {finding.case} case: {finding.problem}"
    return ""


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
