"""The frequencies of rotary positions, which files of ESM-2 hold as a buffer in each layer.

fair-esm calls it `layers.N.self_attn.rot_emb.inv_freq`, transformers
`esm.encoder.layer.N.attention.self.rotary_embeddings.inv_freq`, or once for all layers
`esm.rotary_embeddings.inv_freq`. The model computes them, so they are no parameters; the file says
to what they are rounded. ESM-2 was trained in float16, which rounded them, and fair-esm and
transformers compute with what that left.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from pathlib import Path

import mlx.core as mx
import numpy as np

from ..models.config import ESM1Config
from ..models.dtypes import DTYPES
from ..ops.angles import BASE, rotary_frequencies
from .opened import Tensor, WeightsError

# As a share. Less than half of it is left by any way to compute them in float32; and by bfloat16
# of what float16 had rounded before.
_ROUNDING = {"float32": 2.0**-20, "float16": 2.0**-20, "bfloat16": 2.0**-6}


def is_frequencies(name: str) -> bool:
    """Whether a tensor of this name holds frequencies."""
    return name == "inv_freq" or name.endswith(".inv_freq")


def head_dim_of(tensors: Mapping[str, Tensor]) -> int | None:
    """The width of a head, which has half as many frequencies; None where a file has none."""
    shapes = (tensor.shape for name, tensor in tensors.items() if is_frequencies(name))
    return next((2 * shape[0] for shape in shapes if len(shape) == 1), None)


def with_frequencies(path: Path, tensors: Mapping[str, Tensor], config: ESM1Config) -> ESM1Config:
    """The config of a rotary model, with the dtype that a file's frequencies are rounded to.

    A file without any has those that are computed in float32, as in transformers.

    Args:
        path: of the file.
        tensors: some or all of what it holds.
        config: of the model in it.

    Raises:
        WeightsError: frequencies are not 10000^(-2i / D), i < D / 2, or not those of all layers.
    """
    dtypes = {
        _dtype_of(path, name, tensor, config.head_dim)
        for name, tensor in tensors.items()
        if is_frequencies(name)
    }
    if len(dtypes) > 1:
        raise WeightsError(
            f"{path} has frequencies of rotary positions (inv_freq) that are rounded to "
            f"{' in some layers and to '.join(sorted(dtypes))} in others; they must be the same."
        )
    return dataclasses.replace(config, frequency_dtype=dtypes.pop()) if dtypes else config


def _dtype_of(path: Path, name: str, tensor: Tensor, dim: int) -> str:
    """The first dtype to which frequencies are rounded so that they are those of the file."""
    if tensor.shape != (dim // 2,):
        raise WeightsError(
            f"{path} does not fit its config: {name} must have shape {(dim // 2,)}; got "
            f"{tensor.shape}."
        )
    found = np.array(tensor.read().astype(mx.float32))
    for dtype, rounding in _ROUNDING.items():
        expected = np.array(rotary_frequencies(dim, rounded_to=DTYPES[dtype]))
        if np.all(np.abs(found / expected - 1) < rounding):  # which of a NaN is not true
            return dtype
    raise WeightsError(
        f"{path} cannot be used: {name} must be {BASE:.0f}^(-2i / {dim}), as in ESM-2; got "
        f"{', '.join(f'{x:g}' for x in found[:3])}{', ...' * (len(found) > 3)}."
    )
