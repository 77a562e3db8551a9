"""Which code serves a call on a Metal GPU: our kernels, or the maths built from MLX's own ops.

Whether a gradient will be wanted is not known at the call, so a rule that prefers MLX must hold for
a training step as well: MLX's backward writes L x L arrays.
"""

from __future__ import annotations

import os
from dataclasses import dataclass

import mlx.core as mx

from .. import _ext
from . import self_test
from .device_cache import log

KERNELS_VARIABLE = "MLX_ESM_KERNELS_GPU_KERNELS"
CHOICES = ("auto", "ours", "mlx")


@dataclass(frozen=True)
class PreferMLX:
    """Dense calls (no segment ids, no biases) that MLX's own attention serves faster.

    Attributes:
        first_generation: of the GPU, from which on the rule holds; 17 is M5.
        head_dims, dtypes: for which it holds.
        shortest: L from which on it holds.
        most_bytes: of the (B, H, L, L) scores that MLX's backward writes, up to which it holds.
        reason: why, for the log.
    """

    first_generation: int
    head_dims: tuple[int, ...]
    dtypes: tuple[mx.Dtype, ...]
    shortest: int
    most_bytes: int
    reason: str


ATTENTION_RULES = (
    PreferMLX(
        first_generation=17,
        head_dims=(64, 72, 80, 96, 128),
        dtypes=(mx.float16, mx.bfloat16),
        shortest=1024,
        most_bytes=1 << 30,
        reason="dense and long on a chip with matrix hardware that simdgroup_matrix does not use, "
        "and the L x L arrays of MLX's backward are below 1 GB",
    ),
    PreferMLX(
        first_generation=13,
        head_dims=(104, 112, 120, 128),
        dtypes=(mx.float32, mx.float16, mx.bfloat16),
        shortest=512,
        most_bytes=1 << 28,
        reason="dense, and D beyond 96, where bench/metal_model.py predicts that our backward, of "
        "9 products where MLX has 7, is slower; the L x L arrays of MLX's are below 256 MB",
    ),
)


def checked_choice(value: str, where: str) -> str:
    """value, which must be one of CHOICES.

    Raises:
        ValueError: it is not; `where` names what it was given for.
    """
    if value not in CHOICES:
        raise ValueError(f"{where} must be auto, ours or mlx; got {value}.")
    return value


def choice_of_environment() -> str:
    """What MLX_ESM_KERNELS_GPU_KERNELS asks for; auto where it is not set.

    Raises:
        ValueError: it has a value that means nothing.
    """
    value = os.environ.get(KERNELS_VARIABLE) or "auto"
    return checked_choice(value, f"[dispatch] {KERNELS_VARIABLE}")


_default_choice = choice_of_environment()


def attention_is_ours(
    q: mx.array,
    dense: bool,
    kernels: str | None,
    stream: mx.Stream | mx.Device | None,
) -> bool:
    """Whether our attention serves this call.

    Args:
        q: (B, H, L, D); anything else is left to the op, which refuses it.
        dense: neither segment ids nor biases are given.
        kernels: auto, ours, mlx, or None for what the environment says.
        stream: where the op will run.

    Raises:
        ValueError: `kernels` is none of these.
    """
    choice = _chosen(kernels, "masked_attention")
    if not _ext.runs_on_metal(stream) or q.ndim != 4 or not q.size:
        return kernels != "mlx"
    head_dim, dtype = q.shape[3], q.dtype
    if choice == "mlx":
        return _decide("masked_attention", q, False, "it was asked for")
    if not _ext.attention_served(head_dim, dtype):
        return _decide("masked_attention", q, False, "no kernel of ours serves D and dtype")
    reason = _rule_for_mlx(q) if dense and choice == "auto" else None
    if reason:
        return _decide("masked_attention", q, False, reason)
    passed = self_test.attention_passes(head_dim, dtype, stream)
    reason = "our kernel passed its self-test" if passed else "our kernel failed its self-test"
    return _decide("masked_attention", q, passed, reason)


def embedding_is_ours(
    token_table: mx.array, kernels: str | None, stream: mx.Stream | mx.Device | None
) -> bool:
    """Whether our embedding serves this call; arguments as in `attention_is_ours`."""
    choice = _chosen(kernels, "positional_embedding")
    floating = token_table.dtype in (mx.float32, mx.float16, mx.bfloat16)
    if not _ext.runs_on_metal(stream) or not floating:
        return kernels != "mlx"
    if choice == "mlx":
        return _decide("positional_embedding", token_table, False, "it was asked for")
    passed = self_test.embedding_passes(token_table.dtype, stream)
    reason = "our kernel passed its self-test" if passed else "our kernel failed its self-test"
    return _decide("positional_embedding", token_table, passed, reason)


def _chosen(kernels: str | None, op: str) -> str:
    return _default_choice if kernels is None else checked_choice(kernels, f"[{op}] kernels")


def _rule_for_mlx(q: mx.array) -> str | None:
    """The reason for which MLX serves this dense call, if there is one."""
    generation = (_ext.metal_chip() or {}).get("generation", 0)
    batch, heads, length, head_dim = q.shape
    score_bytes = batch * heads * length * length * q.dtype.size
    for rule in ATTENTION_RULES:
        if (
            generation >= rule.first_generation
            and head_dim in rule.head_dims
            and q.dtype in rule.dtypes
            and length >= rule.shortest
            and score_bytes <= rule.most_bytes
        ):
            return rule.reason
    return None


def _decide(op: str, x: mx.array, ours: bool, reason: str) -> bool:
    log.debug("%s %s %s: %s, as %s", op, x.shape, x.dtype, "ours" if ours else "MLX", reason)
    return ours
