"""The ops that choose between our kernels and MLX's at each call."""

from __future__ import annotations

import mlx.core as mx

from .. import _ext
from . import dispatch
from .forked import note_use


def masked_attention(
    q: mx.array,
    k: mx.array,
    v: mx.array,
    *,
    scale: float | None = None,
    segment_ids: mx.array | None = None,
    bias_k: mx.array | None = None,
    bias_v: mx.array | None = None,
    kernels: str | None = None,
    stream: mx.Stream | mx.Device | None = None,
) -> mx.array:
    """Attention in which a query sees the keys of its own segment, and no L x L array is made.

    ``softmax(scale * q @ k.T) @ v`` within each segment, accumulated in float32. Differentiable
    in ``q``, ``k``, ``v``, ``bias_k`` and ``bias_v``; deterministic.

    Args:
        q, k, v: ``(B, H, L, D)``, one dtype of float32, float16, bfloat16; any strides.
        scale: factor of the scores. Default: ``D ** -0.5``.
        segment_ids: ``(B, L)`` integer or bool. Equal ids attend to each other; 0 is padding,
            whose rows and gradients are exactly 0 whatever they hold. Default: every row of the
            batch is one segment.
        bias_k, bias_v: ``(H, D)``, one more key and value that every query sees, as in ESM-1.
        kernels: ``"ours"``; ``"mlx"``, the same maths from MLX's own ops, which make L x L arrays
            but for dense calls of some D on a Metal GPU; ``"auto"``, there the faster of both, as
            timed there or else by a rule, and ours elsewhere. Default: what
            MLX_ESM_KERNELS_GPU_KERNELS says, or auto.
        stream: where to run.

    Returns:
        ``(B, H, L, D)`` in the dtype of ``q``.

    Raises:
        ValueError: where shapes or dtypes do not fit together, or `kernels` is none of these.
    """
    note_use()
    segments, biases = segment_ids is not None, bias_k is not None
    return _ext.masked_attention(
        q,
        k,
        v,
        scale=scale,
        segment_ids=segment_ids,
        bias_k=bias_k,
        bias_v=bias_v,
        fused=dispatch.attention_is_ours(q, segments, biases, kernels, stream),
        stream=stream,
    )


def positional_embedding(
    tokens: mx.array,
    token_table: mx.array,
    position_table: mx.array,
    *,
    padding_idx: int,
    mask_idx: int | None = None,
    segment_ids: mx.array | None = None,
    kernels: str | None = None,
    stream: mx.Stream | mx.Device | None = None,
) -> mx.array:
    """Token embedding plus learned positions that skip padding and restart in every segment.

    Row ``token_table[t] + position_table[padding_idx + n]`` for the n-th token (from 1) of its
    segment that is not padding; exactly 0 on padding. With ``mask_idx``, ESM's token dropout:
    rows of masked tokens are 0 and the others are scaled by ``0.88 / (1 - n_mask / n)`` per
    segment (facebookresearch/esm, esm/model/esm1.py). Differentiable in both tables;
    deterministic.

    Args:
        tokens: ``(B, L)`` integer.
        token_table: ``(V, C)`` float32, float16 or bfloat16.
        position_table: ``(P, C)``, the same dtype.
        padding_idx: the token that is padding.
        mask_idx: the token that is dropped. Default: no token dropout.
        segment_ids: ``(B, L)`` integer or bool, 0 = padding. Default: every row of the batch is
            one segment.
        kernels: as in `masked_attention`.
        stream: where to run.

    Returns:
        ``(B, L, C)`` in the dtype of the tables.

    Raises:
        ValueError: where shapes or dtypes do not fit together, a token is not in its table, a
            sequence is longer than the position table, or `kernels` is none of these. Where
            ``mx.compile`` or ``mx.vmap`` hide the tokens, what is wrong with them is raised as
            RuntimeError at evaluation.
    """
    note_use()
    return _ext.positional_embedding(
        tokens,
        token_table,
        position_table,
        padding_idx=padding_idx,
        mask_idx=mask_idx,
        segment_ids=segment_ids,
        fused=dispatch.is_ours("positional_embedding", token_table, kernels, stream),
        stream=stream,
    )


def rotary(
    x: mx.array,
    angles: mx.array,
    *,
    kernels: str | None = None,
    stream: mx.Stream | mx.Device | None = None,
) -> mx.array:
    """Queries or keys turned by their positions: of a head's halves a, b, as one complex number.

    ``[a, b] -> [a cos - b sin, b cos + a sin]``, computed in float32 (Su et al. 2021, RoFormer).
    Differentiable in both; deterministic. A row's result depends on nothing but the row.

    Args:
        x: ``(B, H, L, D)`` float32, float16 or bfloat16, D even; any strides.
        angles: ``(B, L, D)`` float32, of `rotary_angles`.
        kernels: as in `masked_attention`.
        stream: where to run.

    Returns:
        ``(B, H, L, D)`` in the dtype of ``x``.

    Raises:
        ValueError: where shapes or dtypes do not fit together, or `kernels` is none of these.
    """
    note_use()
    fused = dispatch.is_ours("rotary", x, kernels, stream)
    return _ext.rotary(x, angles, fused=fused, stream=stream)
