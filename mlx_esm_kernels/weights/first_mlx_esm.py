"""The first mlx-esm: its alphabet, its architecture, and its .npz files.

It let proteins attend to the padding behind them, so that they depended on the batch. Here they do
not: each has the numbers that it had there alone.
"""

from __future__ import annotations

import re
from functools import partial
from pathlib import Path
from typing import Any

import mlx.core as mx
import numpy as np

from ..data.alphabet import Alphabet
from ..models.config import ESM1Config
from ..models.dtypes import READ_AS
from .opened import OpenedWeights, Tensor, WeightsError

# Its specials were single characters, $ * ? ^ and %, and tokens stood in the order of their code
# points, but for % (padding), which changed places with the first.
FIRST_MLX_ESM = Alphabet(
    ("<pad>", "<eos>", "<mask>", "-", ".", "<unk>", *"ABCDEFGHIKLMNOPQRSTUVWXYZ", "<cls>")
)
# Its command line had no flag for sizes, and the file does not say this one.
_NUM_HEADS = 4
_PROJECTIONS = re.compile(r"self_attn\.([qkv])_proj")


def first_mlx_esm_config(**fields: Any) -> ESM1Config:
    """A config of the first mlx-esm's architecture; `fields` are its sizes."""
    switches = {
        "token_dropout": False,
        "emb_layer_norm_before": False,
        "emb_layer_norm_after": False,
        "layer_norm_eps": 1e-12,
        "sinusoidal_positions": True,
        "tied_output": False,
    }
    return ESM1Config.of(FIRST_MLX_ESM, **{**switches, **fields})


def read_first_mlx_esm(path: Path) -> OpenedWeights:
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
        config = first_mlx_esm_config(
            num_layers=len(numbers), embed_dim=width, ffn_dim=ffn, num_heads=_NUM_HEADS
        )
    except ValueError as error:
        raise WeightsError(f"{path} has sizes that cannot be used: {error}") from None
    return OpenedWeights(path, config, FIRST_MLX_ESM, tensors, name_in_first_mlx_esm)


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
                if array.dtype.name not in READ_AS:
                    raise WeightsError(
                        f"{path}: {name} must be one of {', '.join(READ_AS)}; got {array.dtype}."
                    )
                dtype = READ_AS[array.dtype.name]
                tensors[name] = Tensor(array.shape, dtype, partial(mx.array, array, dtype))
    except FileNotFoundError:
        raise WeightsError(f"There is no weights file {path}.") from None
    except WeightsError:
        raise
    except Exception:  # a damaged zip can raise anything
        # Not numpy's message: it suggests to trust the file.
        raise WeightsError(f"{path} is no .npz file, or a damaged one.") from None
    return tensors


def _names(tensors: dict[str, Tensor]) -> str:
    names = sorted(tensors)
    return ", ".join(names[:3]) + (f" and {len(names) - 3} more" if len(names) > 3 else "")
