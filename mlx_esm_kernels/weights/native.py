"""Weights as one .safetensors file that carries the model's config and alphabet: our own format.

The file holds the parameters under fair-esm's names; its metadata holds `format_version`,
`config` and `alphabet` (both json), and whatever the writer added. A model whose linear layers are
int8 has `quantization` there, which says so, their weights as int8 and a float32 `weight_scale`
beside each; it is of version 3, so that releases which know nothing of that say so. Version 1 knew
ESM-1b and ESM-1v alone; its configs and alphabets lack what has been added since, which then has
its default.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path

from mlx.utils import tree_flatten

from ..data.alphabet import Alphabet
from ..models.config import ESM1Config
from ..models.esm1 import ESM1
from ..models.int8 import NAME as INT8
from ..models.int8 import int8_layers
from ..models.low_rank import low_rank_layers
from ..system.whole_file import whole_file
from .opened import OpenedWeights, WeightsError
from .safetensors_file import open_safetensors, write_safetensors

FORMAT_VERSION = 2
FORMAT_VERSION_QUANTISED = 3
_READABLE = ("1", "2", "3")
_RESERVED = ("format_version", "config", "alphabet", "quantization")


def save_weights(
    path: str | os.PathLike[str], model: ESM1, metadata: Mapping[str, str] | None = None
) -> None:
    """Write the model, its config and its alphabet to `path`, all or nothing.

    The new file is complete and on the disk before it takes the place of an old one, so `path`
    never holds half a file, whatever happens.

    Args:
        path: where to write; its folder must exist. A symbolic link is followed.
        model: the model.
        metadata: further strings to keep in the file.

    Raises:
        ValueError: metadata uses a reserved name, or the model has an adapter.
        OSError: the file cannot be written (an `OutputError`, a sentence); what was at `path` is
            untouched.
    """
    extra = dict(metadata or {})
    if taken := sorted(set(extra) & set(_RESERVED)):
        raise ValueError(f"[save_weights] metadata may not set {', '.join(taken)}.")
    if low_rank_layers(model):
        raise ValueError(
            "[save_weights] the model has an adapter beside its layers, which no file of weights "
            "holds: fuse_low_rank adds it to the weights, save_adapter writes it alone."
        )
    header = {
        "format_version": str(FORMAT_VERSION),
        "config": json.dumps(model.config.to_dict()),
        "alphabet": json.dumps(model.alphabet.to_dict()),
    }
    if int8_layers(model):
        header |= {"format_version": str(FORMAT_VERSION_QUANTISED), "quantization": INT8}
    parameters = dict(tree_flatten(model.parameters()))
    with whole_file(Path(path)) as half_done:
        name = Path(path).name
        write_safetensors(half_done, parameters, {**extra, **header}, name=name)


def is_native(path: Path) -> bool:
    """Whether a .safetensors file, damaged or not, is one of `save_weights`."""
    try:
        return "format_version" in open_safetensors(path)[1]
    except WeightsError:
        return True  # `read_native` says what is wrong


def read_native(path: Path) -> OpenedWeights:
    """Open a file of `save_weights`.

    Raises:
        WeightsError: no such file, no safetensors, cut short, or no config or alphabet in it.
    """
    tensors, metadata = open_safetensors(path)
    config, alphabet = _config(path, metadata), _alphabet(path, metadata)
    quantization = metadata.get("quantization")
    if quantization is None:
        return OpenedWeights(path, config, alphabet, tensors)
    if quantization != INT8:
        raise WeightsError(
            f"{path} is quantised as {quantization!r}, and this release reads {INT8!r}: install a "
            f"newer mlx-esm-kernels."
        )
    tensors, _ = open_safetensors(path, int8=True)
    return OpenedWeights(path, config, alphabet, tensors, int8=True)


def _config(path: Path, metadata: Mapping[str, str]) -> ESM1Config:
    version = metadata.get("format_version")
    if version is None or "config" not in metadata:
        raise WeightsError(
            f"{path} is a safetensors file, but has no config in it: "
            f"it was not written by mlx-esm-kernels. Of a model from Hugging Face give the folder, "
            f"with config.json in it."
        )
    if version not in _READABLE:
        raise WeightsError(
            f"{path} has format version {version}, this release reads {_READABLE[-1]}: "
            f"install a newer mlx-esm-kernels."
        )
    try:
        return ESM1Config.from_dict(json.loads(metadata["config"]))
    except (ValueError, TypeError) as error:
        raise WeightsError(f"{path} has a config that cannot be used: {error}") from None


def _alphabet(path: Path, metadata: Mapping[str, str]) -> Alphabet:
    if "alphabet" not in metadata:
        raise WeightsError(
            f"{path} is a safetensors file, but has no alphabet in it: "
            f"it was not written by mlx-esm-kernels."
        )
    try:
        return Alphabet.from_dict(json.loads(metadata["alphabet"]))
    except (ValueError, TypeError, KeyError) as error:
        raise WeightsError(f"{path} has an alphabet that cannot be used: {error}") from None
