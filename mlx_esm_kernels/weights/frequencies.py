"""The frequencies of rotary positions, which files of ESM-2 hold as a buffer in each layer.

fair-esm calls it `layers.N.self_attn.rot_emb.inv_freq`, transformers
`esm.encoder.layer.N.attention.self.rotary_embeddings.inv_freq`, or once for all layers
`esm.rotary_embeddings.inv_freq`. The model computes them, so they are no parameters.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import mlx.core as mx
import numpy as np

from ..ops.angles import BASE
from .opened import Tensor, WeightsError

# More than float16 and bfloat16 round; another base differs by more in nearly all of them.
_ROUNDING = 2.0**-7


def is_frequencies(name: str) -> bool:
    """Whether a tensor of this name holds frequencies."""
    return name == "inv_freq" or name.endswith(".inv_freq")


def head_dim_of(tensors: Mapping[str, Tensor]) -> int | None:
    """The width of a head, which has half as many frequencies; None where a file has none."""
    shapes = (tensor.shape for name, tensor in tensors.items() if is_frequencies(name))
    return next((2 * shape[0] for shape in shapes if len(shape) == 1), None)


def require_frequencies(path: Path, tensors: Mapping[str, Tensor], head_dim: int) -> None:
    """Refuse a file whose positions turn otherwise than the model's.

    Args:
        path: of the file.
        tensors: some or all of what it holds.
        head_dim: D, even.

    Raises:
        WeightsError: frequencies are not 10000^(-2i / D), i < D / 2, to half precision.
    """
    for name, tensor in tensors.items():
        if not is_frequencies(name):
            continue
        if tensor.shape != (head_dim // 2,):
            raise WeightsError(
                f"{path} does not fit its config: {name} must have shape {(head_dim // 2,)}; got "
                f"{tensor.shape}."
            )
        expected = BASE ** (-np.arange(0, head_dim, 2) / head_dim)
        found = np.array(tensor.read().astype(mx.float32))
        # Of a NaN this is not true either.
        if not np.all(np.abs(found / expected - 1) < _ROUNDING):
            raise WeightsError(
                f"{path} cannot be used: {name} must be {BASE:.0f}^(-2i / {head_dim}), as in "
                f"ESM-2; got {', '.join(f'{x:g}' for x in found[:3])}{', ...' * (len(found) > 3)}."
            )
