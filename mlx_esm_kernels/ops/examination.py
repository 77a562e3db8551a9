"""An examination of the ops on the device at hand: are they right, what serves, how fast it is.

What is found are plain dicts and numbers, for a report. Everything that may raise, raises.
"""

from __future__ import annotations

import functools
import logging
import re
import time
import warnings
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import mlx.core as mx

from .. import _ext
from .calls import masked_attention, positional_embedding, rotary
from .cases import attention_cases, embedding_cases, rotary_cases
from .cpu_cases import CPU_CASES
from .device_cache import log
from .judging import Case, Finding, findings, name_of_dtype
from .self_test import KernelWarning

DTYPES = (mx.float32, mx.float16, mx.bfloat16)
WITH_DTYPES = ("linear", "int8_linear", "layer_norm")  # of the ops that are ours on a CPU alone
_DECISION = re.compile(r": (ours|MLX), as (.*)$", re.DOTALL)


@dataclass(frozen=True)
class Variant:
    """What is examined at once.

    Attributes:
        op: its word.
        dtype: of its inputs.
        head_dim: D of attention; None for other ops.
    """

    op: str
    dtype: mx.Dtype
    head_dim: int | None = None

    def key(self) -> dict[str, Any]:
        """As the entries of a report begin."""
        return {"op": self.op, "dtype": name_of_dtype(self.dtype), "head_dim": self.head_dim}

    def __str__(self) -> str:
        dim = f", D = {self.head_dim}" if self.head_dim else ""
        return f"{self.op}, {name_of_dtype(self.dtype)}{dim}"


def device() -> str:
    """Where the ops run now: metal, metal-emulator or cpu."""
    if not _ext.runs_on_metal(None):
        return "cpu"
    emulated = (_ext.metal_chip() or {}).get("architecture") == "emulated"
    return "metal-emulator" if emulated else "metal"


def variants(head_dims: Sequence[int], every: bool = False) -> list[Variant]:
    """All that is ours on this device, on Metal what has kernels there; or every op's."""
    found = [Variant("masked_attention", dtype, dim) for dim in head_dims for dtype in DTYPES]
    found += [Variant(op, dtype) for op in ("positional_embedding", "rotary") for dtype in DTYPES]
    if every or device() == "cpu":
        found += [Variant(op, dtype) for op in WITH_DTYPES for dtype in DTYPES]
        found += [Variant("adamw", mx.float32)]
    return found


def examine(variant: Variant) -> Iterator[tuple[Finding, float]]:
    """A finding for each result of each case, as it is made, and the seconds that it took."""
    for case in _cases(variant):
        case.units(name_of_dtype(variant.dtype))  # truth is no time of the device
        begun = time.perf_counter()
        for finding in findings(case, variant.dtype, None):
            now = time.perf_counter()
            yield finding, now - begun
            begun = time.perf_counter()


def _cases(variant: Variant) -> Sequence[Case]:
    if variant.head_dim is not None:
        return attention_cases(variant.head_dim)
    if variant.op == "rotary":
        return rotary_cases()
    if variant.op != "positional_embedding":
        return tuple(CPU_CASES[variant.op]())
    # Outside a table the CPU op raises, which the tests look at; a kernel can not.
    known = device() != "cpu"
    return tuple(case for case in embedding_cases() if known or case.name != "outside")


def seconds_of_all(variant: Variant) -> float:
    """How long all cases of the variant take now, less the making of their truth."""
    return sum(seconds for _, seconds in examine(variant))


def serves(variant: Variant) -> Iterator[dict[str, Any]]:
    """Which code serves some calls of the op, and why, as its dispatch says."""
    if variant.op == "masked_attention":
        calls = _attention_calls(variant)
    elif variant.op == "positional_embedding":
        calls = {"all": lambda: _embedding_call(variant)}
    elif variant.op == "rotary":
        calls = {"all": lambda: _rotary_call(variant)}
    else:
        calls = {"all": lambda: None}
    for name, call in calls.items():
        ours, reason = _decision(call)
        yield variant.key() | {"call": name, "ours": ours, "reason": reason}


def _attention_calls(variant: Variant) -> dict[str, Callable[[], Any]]:
    length, dim = 512, variant.head_dim or 0
    x = mx.zeros((1, 1, length, dim), variant.dtype)
    ids = {"segment_ids": mx.ones((1, length), mx.int32)}
    biases = dict.fromkeys(("bias_k", "bias_v"), mx.zeros((1, dim), variant.dtype))
    options: dict[str, dict[str, Any]] = {
        "dense": {},
        "segments": ids,
        "segments and extra key": ids | biases,
    }
    return {
        name: functools.partial(masked_attention, x, x, x, **given)
        for name, given in options.items()
    }


def _embedding_call(variant: Variant) -> mx.array:
    table = mx.zeros((8, 8), variant.dtype)
    return positional_embedding(mx.ones((1, 4), mx.int32), table, table, padding_idx=1)


def _rotary_call(variant: Variant) -> mx.array:
    return rotary(mx.zeros((1, 1, 4, 8), variant.dtype), mx.zeros((1, 4, 8)))


def _decision(call: Callable[[], Any]) -> tuple[bool, str]:
    """Whether ours serves the call, which nobody evaluates, and the reason that the log gives."""
    said: list[str] = []

    class Listener(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            said.append(record.getMessage())

    listener, level, propagates = Listener(logging.DEBUG), log.level, log.propagate
    log.addHandler(listener)
    log.setLevel(logging.DEBUG)
    log.propagate = False
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", KernelWarning)  # the reason says so
            call()
    finally:
        log.removeHandler(listener)
        log.setLevel(level)
        log.propagate = propagates
    decisions = [found for found in map(_DECISION.search, said) if found]
    if decisions:
        return decisions[-1][1] == "ours", decisions[-1][2]
    if device() == "cpu":
        return True, "our CPU op"
    return False, "no kernel of ours on a GPU"
