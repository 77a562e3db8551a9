"""The types of the numbers in models and their files, and what each of them is called where."""

from __future__ import annotations

from typing import Any, NamedTuple

import mlx.core as mx
import numpy as np


class Stored(NamedTuple):
    """How a type is stored.

    Attributes:
        dtype: the type.
        name: what MLX, numpy and torch call it, and the flag --dtype.
        safetensors: what a .safetensors file calls it.
        bits: the numpy type that holds its bits; numpy has no bfloat16.
    """

    dtype: mx.Dtype
    name: str
    safetensors: str
    bits: Any


_OF_PARAMETERS = (
    Stored(mx.float32, "float32", "F32", np.float32),
    Stored(mx.float16, "float16", "F16", np.float16),
    Stored(mx.bfloat16, "bfloat16", "BF16", np.uint16),
)
_OF_TABLES = (
    Stored(mx.int64, "int64", "I64", np.int64),
    Stored(mx.uint8, "uint8", "U8", np.uint8),
)

# The types that a model can have, by name.
DTYPES = {one.name: one.dtype for one in _OF_PARAMETERS}
# As what parameters of a file are read, by the name of their type in numpy or torch.
READ_AS = {**DTYPES, "float64": mx.float32}
SAFETENSORS = {one.safetensors: one.dtype for one in _OF_PARAMETERS}
# How an array of one of our files is stored.
STORED = {one.dtype: one for one in (*_OF_PARAMETERS, *_OF_TABLES)}
