"""Adapters of Hugging Face's PEFT: the folder that `save_pretrained` of a LoRA of an ESM writes.

W x + (alpha / r) B A x with A (r, I) and B (O, r), or alpha / sqrt(r) with `use_rslora`; see
https://huggingface.co/docs/peft/developer_guides/checkpoint. It does not hold its base, nor
anything by which that could be known but its name.
"""

from __future__ import annotations

import math
import re
import warnings
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import mlx.core as mx

from ..models.low_rank import KEYS, KEYS_OF_MODEL, LowRank
from ..system.errors import UserError
from .hugging_face import name_in_transformers
from .opened import WeightsError, WeightsWarning, some_of
from .safetensors_file import open_safetensors

CONFIG_FILE, ARRAYS_FILE = "adapter_config.json", "adapter_model.safetensors"
_SIDES = {"lora_A": "lora_a", "lora_B": "lora_b"}
_ARRAY = re.compile(
    r"(?:base_model\.model\.)?(?:esm\.)?(?P<layer>(?:lm_head|encoder)\..+)\.(?P<side>lora_[AB])\.weight"
)
# What adds to W x something other than a product, or other products in some layers.
_BEYOND = {
    "use_dora": "DoRA",
    "rank_pattern": "layers of several ranks",
    "alpha_pattern": "layers of several scales",
    "modules_to_replicate": "replicated layers",
    "layer_replication": "replicated layers",
    "lora_bias": "biases of its products",
}


def read_peft(
    folder: Path, config: Mapping[str, Any], total: int
) -> tuple[LowRank, dict[str, mx.array]]:
    """The products of a PEFT adapter, under our names.

    Args:
        folder: with `adapter_model.safetensors`.
        config: what its `adapter_config.json` holds.
        total: layers of the model that it is for.

    Raises:
        WeightsError: it is no LoRA, or has more than products beside the linear layers of an ESM.
    """
    rank, scale = _rank_and_scale(folder, config)
    arrays, left = _read_arrays(folder)
    if heads := [name for name in left if re.search(r"(^|\.)(classifier|score|pooler)\.", name)]:
        warnings.warn(
            f"{folder}: {some_of(sorted(heads))} left aside: a head that this model does not have.",
            WeightsWarning,
            stacklevel=4,
        )
    if odd := sorted(set(left) - set(heads)):
        raise WeightsError(
            f"{folder} cannot be used: beside the linear layers of an ESM it has {some_of(odd)}."
        )
    if not arrays:
        raise WeightsError(f"{folder} has no products beside the linear layers of an ESM.")
    low_rank = _which(folder, arrays, total, rank, scale)
    warnings.warn(
        f"{folder}: an adapter of PEFT does not say for which numbers it was made, only for "
        f"{config.get('base_model_name_or_path')!r}: see that the weights are those.",
        WeightsWarning,
        stacklevel=4,
    )
    return low_rank, arrays


def _rank_and_scale(folder: Path, config: Mapping[str, Any]) -> tuple[int, float]:
    path = folder / CONFIG_FILE
    if config["peft_type"] != "LORA":
        raise WeightsError(
            f"{path} has peft_type {config['peft_type']!r}: only low-rank adapters, 'LORA', are "
            f"read here."
        )
    for key, what in _BEYOND.items():
        if config.get(key):
            raise WeightsError(f"{path} cannot be used: it has {what} ({key}).")
    if config.get("bias", "none") != "none":
        raise WeightsError(
            f"{path} cannot be used: it has trained biases too (bias is {config['bias']!r})."
        )
    rank, alpha = config.get("r"), config.get("lora_alpha")
    if type(rank) is not int or rank < 1 or not isinstance(alpha, int | float):
        raise WeightsError(
            f"{path} is damaged: r and lora_alpha must be numbers; got {rank!r} and {alpha!r}."
        )
    return rank, alpha / (math.sqrt(rank) if config.get("use_rslora") else rank)


def _read_arrays(folder: Path) -> tuple[dict[str, mx.array], list[str]]:
    """A and B under our names, and the names of what is left."""
    path = folder / ARRAYS_FILE
    if not path.exists() and path.with_suffix(".bin").exists():
        raise WeightsError(
            f"{folder} has an adapter_model.bin of an older PEFT: open it there, and save it anew, "
            f"as {ARRAYS_FILE}."
        )
    tensors, _ = open_safetensors(path)
    arrays, left = {}, []
    for name, tensor in tensors.items():
        found = _ARRAY.fullmatch(name)
        ours = None if found is None else _name_of(found["layer"])
        if found is None or ours is None or len(tensor.shape) != 2:
            left.append(name)
            continue
        try:
            array = mx.contiguous(tensor.read().T)
            mx.eval(array)
        except (RuntimeError, OSError) as error:
            raise WeightsError(f"{path} cannot be loaded: {name}: {error}.") from None
        arrays[f"{ours}.{_SIDES[found['side']]}"] = array
    return arrays, left


def _name_of(layer: str) -> str | None:
    """Our name of a linear layer: `encoder.layer.0.attention.self.query`, less a leading esm."""
    if layer in KEYS_OF_MODEL:
        return layer
    number = re.match(r"encoder\.layer\.(\d+)\.", layer)
    for key in KEYS if number else ():
        ours = f"layers.{number[1]}.{key}"  # type: ignore[index]
        if name_in_transformers(f"{ours}.weight") == f"esm.{layer}.weight":
            return ours
    return None


def _which(folder: Path, names: Iterable[str], total: int, rank: int, scale: float) -> LowRank:
    """The products of these names; the caller compares the names that they then have."""
    places = [re.fullmatch(r"(?:layers\.(\d+)\.)?(.+)\.lora_[ab]", name) for name in names]
    numbers = [int(place[1]) for place in places if place and place[1] is not None]
    present = {place[2] for place in places if place}
    keys = tuple(key for key in (*KEYS, *KEYS_OF_MODEL) if key in present)
    count = total - min(numbers, default=0)
    if count < 1:
        raise WeightsError(
            f"{folder} does not fit the weights: it has a layer {min(numbers)}, of {total} layers."
        )
    try:
        return LowRank(rank, scale, keys=keys, num_layers=None if count == total else count)
    except UserError as error:
        raise WeightsError(f"{folder / CONFIG_FILE} cannot be used: {error}") from None
