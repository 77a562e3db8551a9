"""The compiled ops: attention, embedding, linear, layer norm and a step of AdamW.

Importing this module checks that the MLX at hand is the one the extension was built for, and makes
the libraries that the extension links to known to the loader.
"""

from __future__ import annotations

import ctypes
import importlib.metadata
import platform
from pathlib import Path

MLX_VERSION = "0.32.4"


def _check_mlx() -> None:
    """Raise ImportError unless the installed mlx is the one that the extension was compiled for."""
    found = importlib.metadata.version("mlx")
    if found != MLX_VERSION:
        raise ImportError(
            f"mlx_esm_kernels is compiled for mlx {MLX_VERSION}, but mlx {found} is installed; "
            f"run `pip install 'mlx=={MLX_VERSION}'`, or reinstall mlx_esm_kernels."
        )


def _load_blas() -> None:
    """Load OpenBLAS from its package: the extension finds a library that is loaded by its name."""
    if platform.system() != "Linux":
        return
    import scipy_openblas32

    library = Path(scipy_openblas32.get_lib_dir()) / scipy_openblas32.get_library(fullname=True)
    ctypes.CDLL(str(library))


_check_mlx()
# mlx.core comes before the extension, which links to the library that mlx.core loads.
import mlx.core as mx  # noqa: E402

_load_blas()

from mlx_esm_kernels import _ext, dispatch  # noqa: E402
from mlx_esm_kernels._ext import (  # noqa: E402
    adamw,
    add_layer_norm,
    cpu_target,
    keep_freed_memory,
    layer_norm,
    linear,
    linears,
    num_threads,
)

# A bad value of an environment variable is better known now than in the middle of a computation.
num_threads()
cpu_target()


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
        kernels: ``"ours"``; ``"mlx"``, the same maths from MLX's own ops, which makes L x L
            arrays; ``"auto"``, on a Metal GPU the faster of them, else ours. Default:
            what MLX_ESM_KERNELS_GPU_KERNELS says, or auto.
        stream: where to run.

    Returns:
        ``(B, H, L, D)`` in the dtype of ``q``.

    Raises:
        ValueError: where shapes or dtypes do not fit together, or `kernels` is none of these.
    """
    dense = segment_ids is None and bias_k is None
    return _ext.masked_attention(
        q,
        k,
        v,
        scale=scale,
        segment_ids=segment_ids,
        bias_k=bias_k,
        bias_v=bias_v,
        fused=dispatch.attention_is_ours(q, dense, kernels, stream),
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
    return _ext.positional_embedding(
        tokens,
        token_table,
        position_table,
        padding_idx=padding_idx,
        mask_idx=mask_idx,
        segment_ids=segment_ids,
        fused=dispatch.embedding_is_ours(token_table, kernels, stream),
        stream=stream,
    )


__all__ = [
    "MLX_VERSION",
    "adamw",
    "add_layer_norm",
    "keep_freed_memory",
    "layer_norm",
    "linear",
    "linears",
    "masked_attention",
    "positional_embedding",
]
