"""Which code serves a call on a Metal GPU: our kernels, or the maths built from MLX's own ops.

Whether a gradient will be wanted is not known at the call, so what prefers MLX must hold for a
training step as well. Where both sides were timed on this machine, the faster one serves; else one
rule decides.
"""

from __future__ import annotations

import math
import os

import mlx.core as mx

from .. import _ext
from . import self_test, timings
from .device_cache import log

KERNELS_VARIABLE = "MLX_ESM_KERNELS_GPU_KERNELS"
CHOICES = ("auto", "ours", "mlx")

# Those of D up to 128 for which MLX 0.32.4 has attention fused forward and backward, without a
# mask and in all three dtypes. What it lacks stays ours until timings say otherwise: segments and
# padding, the extra key, and other D, for all of which a training step of MLX's is L x L. That is
# predicted faster than ours for many D, 104 to 120 among them (bench/metal_model.py), but its
# memory grows with L * L, which a call that has not asked for it should not meet.
MLX_HEAD_DIMS = (64, 72, 80, 96, 128)
MLX_REASON = "dense, with a D for which MLX is fused forward and backward; nothing was timed here"


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
    segments: bool,
    biases: bool,
    kernels: str | None,
    stream: mx.Stream | mx.Device | None,
) -> bool:
    """Whether our attention serves this call.

    Args:
        q: (B, H, L, D); anything else is left to the op, which refuses it.
        segments: segment ids are given.
        biases: bias_k and bias_v are given.
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
    why_ours = ""
    if choice == "auto" and not biases:
        ours, reason = _preference(q, dense=not segments)
        if not ours:
            return _decide("masked_attention", q, False, reason)
        why_ours = reason and f"{reason}, and "
    passed = self_test.attention_passes(head_dim, dtype, stream)
    if not passed:
        return _decide("masked_attention", q, False, "our kernel failed its self-test")
    return _decide("masked_attention", q, True, f"{why_ours}our kernel passed its self-test")


def is_ours(
    op: str, x: mx.array, kernels: str | None, stream: mx.Stream | mx.Device | None
) -> bool:
    """Whether our kernel serves this call of an op that MLX has nothing fused for.

    Args:
        op: its word; attention has a function of its own.
        x: the array whose dtype counts; one that is not floating is left to the op.
        kernels, stream: as in `attention_is_ours`.

    Raises:
        ValueError: `kernels` is none of the choices.
    """
    choice = _chosen(kernels, op)
    floating = x.dtype in (mx.float32, mx.float16, mx.bfloat16)
    if not _ext.runs_on_metal(stream) or not floating:
        return kernels != "mlx"
    if choice == "mlx":
        return _decide(op, x, False, "it was asked for")
    passed = self_test.passes(op, x.dtype, stream)
    reason = "our kernel passed its self-test" if passed else "our kernel failed its self-test"
    return _decide(op, x, passed, reason)


def _chosen(kernels: str | None, op: str) -> str:
    return _default_choice if kernels is None else checked_choice(kernels, f"[{op}] kernels")


def measured_preference(
    head_dim: int, dtype: mx.Dtype, dense: bool, length: int
) -> tuple[bool, str] | None:
    """Whether ours is the faster on this machine, and the figures; None where nothing was timed.

    The timing of the nearest length decides, as a ratio, by forward and backward together.

    Args:
        head_dim: D.
        dtype: of q, k and v.
        dense: no segment ids are given.
        length: L.
    """
    found = [timing for timing in timings.load(head_dim, dtype) if timing["dense"] == dense]
    if not found:
        return None
    nearest = min(found, key=lambda timing: abs(math.log(timing["length"] / length)))
    ours, mlx = nearest["forward_backward"]
    # Where MLX's path is L x L, that it won says nothing of longer calls and their memory.
    if mlx <= ours and length > nearest["length"] and not rule_prefers_mlx(head_dim, dense):
        return None
    figures = f"ours {ours * 1e3:.3g} ms, MLX {mlx * 1e3:.3g} ms at L = {nearest['length']}"
    return ours < mlx, f"measured here: {figures}"


def rule_prefers_mlx(head_dim: int, dense: bool) -> bool:
    """Whether MLX serves where nothing was timed: on every chip, in every dtype."""
    return dense and head_dim in MLX_HEAD_DIMS


def _preference(q: mx.array, dense: bool) -> tuple[bool, str]:
    """Whether ours is preferred, and why; "" where nothing speaks for MLX."""
    length, head_dim = q.shape[2:]
    measured = measured_preference(head_dim, q.dtype, dense, length)
    if measured:
        return measured
    return (False, MLX_REASON) if rule_prefers_mlx(head_dim, dense) else (True, "")


def _decide(op: str, x: mx.array, ours: bool, reason: str) -> bool:
    log.debug("%s %s %s: %s, as %s", op, x.shape, x.dtype, "ours" if ours else "MLX", reason)
    return ours
