"""The .npz files of the first mlx-esm."""

from __future__ import annotations

import re
from functools import partial
from pathlib import Path

import mlx.core as mx
import numpy as np

from ..alphabet import FIRST_MLX_ESM
from ..config import ESM1Config
from .checkpoint import Checkpoint, Tensor, WeightsError

# Its command line had no flag for sizes, and the file does not say this one.
_NUM_HEADS = 4
_DTYPES = {"float64": mx.float32, "float32": mx.float32, "float16": mx.float16}
_PROJECTIONS = re.compile(r"self_attn\.([qkv])_proj")


def read_first_mlx_esm(path: Path) -> Checkpoint:
    """Open an .npz file of the first mlx-esm.

    Raises:
        WeightsError: it cannot be read, is damaged, or holds something else.
    """
    tensors = _read_arrays(path)
    try:
        vocabulary, width = tensors["embed_tokens.weight"].shape
        ffn = tensors[name_in_first_mlx_esm("layers.0.fc1.weight")].shape[0]
    except (KeyError, ValueError, IndexError):
        raise WeightsError(
            f"{path} holds no model of the first mlx-esm: it must have embed_tokens.weight and "
            f"transformer_layers.layers.0.fc1.weight, two matrices; it has {_names(tensors)}."
        ) from None
    if vocabulary != len(FIRST_MLX_ESM):
        raise WeightsError(
            f"{path}: embed_tokens.weight must have {len(FIRST_MLX_ESM)} rows, one for each token "
            f"of the first mlx-esm; got {vocabulary}."
        )
    numbers = {
        int(found[1])
        for name in tensors
        if (found := re.match(r"transformer_layers\.layers\.(\d+)\.", name))
    }
    try:
        config = ESM1Config.first_mlx_esm(
            num_layers=len(numbers), embed_dim=width, ffn_dim=ffn, num_heads=_NUM_HEADS
        )
    except ValueError as error:
        raise WeightsError(f"{path} has sizes that cannot be used: {error}") from None
    return Checkpoint(path, config, FIRST_MLX_ESM, tensors, name_in_first_mlx_esm)


def name_in_first_mlx_esm(name: str) -> str:
    """The first mlx-esm's name of a parameter of `ESM1`."""
    if name.startswith("embed_out"):
        return "out.bias" if name.endswith("bias") else "out.weight"
    if not name.startswith("layers."):
        return name
    words = {"q": "query", "k": "key", "v": "value"}
    name = _PROJECTIONS.sub(lambda found: f"self_attn.{words[found[1]]}_proj", name)
    return f"transformer_layers.{name}"


def _read_arrays(path: Path) -> dict[str, Tensor]:
    """All arrays of an .npz; they are small."""
    tensors = {}
    try:
        with np.load(path, allow_pickle=False) as arrays:
            for name in arrays.files:
                array = arrays[name]
                if array.dtype.name not in _DTYPES:
                    raise WeightsError(
                        f"{path}: {name} must be one of {', '.join(_DTYPES)}; got {array.dtype}."
                    )
                dtype = _DTYPES[array.dtype.name]
                tensors[name] = Tensor(array.shape, dtype, partial(mx.array, array, dtype))
    except FileNotFoundError:
        raise WeightsError(f"There is no weights file {path}.") from None
    except WeightsError:
        raise
    except Exception as error:  # a damaged zip can raise anything
        raise WeightsError(f"{path} is no .npz file, or a damaged one ({error}).") from None
    return tensors


def _names(tensors: dict[str, Tensor]) -> str:
    names = sorted(tensors)
    return ", ".join(names[:3]) + (f" and {len(names) - 3} more" if len(names) > 3 else "")
