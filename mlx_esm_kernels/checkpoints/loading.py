"""Any weights, whatever their format, as a model."""

from __future__ import annotations

import os
from pathlib import Path

import mlx.core as mx

from ..model import ESM1
from .checkpoint import Checkpoint, build_model
from .native import read_native


def load_model(path_or_name: str | os.PathLike[str], dtype: mx.Dtype | None = None) -> ESM1:
    """The model in a weights file, with its parameters in memory and its alphabet.

    Args:
        path_or_name: a .safetensors file of `save_weights`.
        dtype: float32, float16 or bfloat16; None: that of the file.

    Raises:
        WeightsError: there is no such file, or it cannot be used. The message says why.
    """
    return build_model(open_checkpoint(path_or_name), dtype)


def open_checkpoint(path_or_name: str | os.PathLike[str]) -> Checkpoint:
    """Find out the format and open it; arguments and errors are those of `load_model`."""
    return read_native(Path(path_or_name))
