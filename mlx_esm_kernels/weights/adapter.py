"""Low-rank adapters on disk: a folder as mlx-lm has them, or one of Hugging Face's PEFT.

Ours is mlx-lm's: `adapters.safetensors` with A and B of every product, and `adapter_config.json`
beside it, to which `base` is added: which model the adapter is for. The arrays' metadata has the
same config, so that the two files of different adapters are never taken for one.
"""

from __future__ import annotations

import json
import time
import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import mlx.core as mx

from ..models.esm1 import ESM1
from ..models.fingerprint import fingerprint_of_base
from ..models.low_rank import (
    KEYS,
    LowRank,
    adapter_arrays,
    add_low_rank,
    layers_beside,
    set_adapter_arrays,
)
from ..system.errors import UserError
from ..system.whole_file import OutputError, output_errors, whole_file, whole_folder
from .opened import WeightsError, WeightsWarning, some_of
from .peft import read_peft
from .safetensors_file import open_safetensors

ARRAYS_FILE, CONFIG_FILE = "adapters.safetensors", "adapter_config.json"
OF_RUNS = "adapters"  # the folder in that of a run
_CONFIG_KEY = "adapter_config"  # of the arrays' metadata
_PATIENCE = 0.5  # seconds until a writer between its two files is done


@dataclass(frozen=True)
class BaseWeights:
    """The model that an adapter is for.

    Attributes:
        name: its path, or the name of a released model.
        fingerprint: `fingerprint_of_base` of it, in float32 or in the dtype that it is stored in.
    """

    name: str
    fingerprint: str


def save_adapter(folder: Path, model: ESM1, low_rank: LowRank, base: BaseWeights) -> None:
    """Write the products of a model as an adapter; each file of it is whole or not there.

    A new folder appears whole. In one that is there already the files of an older adapter of ours
    are replaced, the arrays first, which carry their config: of a run that writes its adapter
    again and again, each is whole, whenever it is read and wherever the run is killed.

    Args:
        folder: where to write; the folder around it must exist.
        model: with the products of `low_rank`.
        low_rank: which they are.
        base: the model without them.

    Raises:
        ValueError: the model has no products.
        OutputError: it cannot be written, or an adapter that is not ours is there.
    """
    arrays = adapter_arrays(model)
    if not arrays:
        raise ValueError("[save_adapter] the model has no low-rank products; see add_low_rank.")
    config = json.dumps(_config_of(low_rank, base), indent=4) + "\n"
    if not folder.exists():
        with whole_folder(folder) as half_done:
            _write(half_done, arrays, config)
        return
    if not folder.is_dir():
        raise OutputError(f"{folder} cannot be written: it is a file, not a folder.")
    _require_ours(folder)
    _write(folder, arrays, config)


def load_adapter(folder: Path, model: ESM1) -> LowRank:
    """Put the products of an adapter beside the layers of its base, in place.

    Args:
        folder: of `save_adapter`, of mlx-lm, or of PEFT with a LoRA of an ESM; or that of a run,
            with the adapter in it.
        model: the base, in the dtype that it is stored in, or in float32. All but the products is
            frozen afterwards; their dtype is that of the file.

    Returns:
        Which layers have one now.

    Raises:
        WeightsError: there is no adapter, or it is damaged, of another base or of another kind;
            the model is as it was.
    """
    if not (folder / CONFIG_FILE).exists() and (folder / OF_RUNS / CONFIG_FILE).exists():
        folder = folder / OF_RUNS
    config, arrays = _read_folder(folder)
    if "peft_type" in config:
        low_rank, arrays = read_peft(folder, config, len(model.layers))
    else:
        low_rank = _low_rank(folder, config, len(model.layers))
        _require_base(folder, config, model)
    _require_numbers(folder, arrays)
    try:
        _require_fit(folder, arrays, _shapes(model, low_rank))
        add_low_rank(model, low_rank)
    except WeightsError:
        raise
    except UserError as error:
        raise WeightsError(f"{folder} does not fit the weights: {error}") from None
    set_adapter_arrays(model, arrays)
    mx.eval(model.parameters())
    return low_rank


def _config_of(low_rank: LowRank, base: BaseWeights) -> dict[str, Any]:
    return {
        "fine_tune_type": "lora",
        "num_layers": -1 if low_rank.num_layers is None else low_rank.num_layers,
        "lora_parameters": {
            "rank": low_rank.rank,
            "scale": low_rank.scale,
            "dropout": low_rank.dropout,
            "keys": list(low_rank.keys),
        },
        "base": {"name": base.name, "fingerprint": base.fingerprint},
    }


def _write(folder: Path, arrays: Mapping[str, mx.array], config: str) -> None:
    with whole_file(folder / ARRAYS_FILE) as half_done, half_done.open("wb") as file:
        mx.save_safetensors(file, dict(arrays), metadata={_CONFIG_KEY: config})
    with whole_file(folder / CONFIG_FILE) as half_done:
        half_done.write_text(config, encoding="utf-8")


def _require_ours(folder: Path) -> None:
    """Refuse to write over an adapter of another program."""
    with output_errors(folder):
        found = [name for name in (ARRAYS_FILE, CONFIG_FILE) if (folder / name).exists()]
    if not found:
        return
    try:
        ours = _CONFIG_KEY in open_safetensors(folder / ARRAYS_FILE)[1]
    except WeightsError:
        ours = False
    if not ours:
        raise OutputError(
            f"{folder} cannot be written: its {' and '.join(found)} are not of mlx-esm-kernels; "
            f"give another folder."
        )


def _read_folder(folder: Path) -> tuple[dict[str, Any], dict[str, mx.array]]:
    """The config, and the arrays in memory; of PEFT the config alone."""
    if not folder.is_dir():
        what = "is a file" if folder.exists() else "does not exist"
        raise WeightsError(
            f"There is no adapter {folder}: it {what}; give the folder with {CONFIG_FILE} in it."
        )
    for attempt in (1, 2):
        config = _read_config(folder)
        if "peft_type" in config:
            return config, {}
        tensors, metadata = open_safetensors(folder / ARRAYS_FILE)
        try:
            arrays = {name: tensor.read() for name, tensor in tensors.items()}
            mx.eval(arrays)
        except (RuntimeError, OSError) as error:
            raise WeightsError(f"{folder / ARRAYS_FILE} cannot be loaded: {error}.") from None
        if _CONFIG_KEY not in metadata or _parsed(folder, metadata[_CONFIG_KEY]) == config:
            break
        if attempt == 1:
            time.sleep(_PATIENCE)
    else:
        raise WeightsError(
            f"{folder}: {CONFIG_FILE} and {ARRAYS_FILE} are of different adapters, or one of them "
            f"was changed; the metadata of {ARRAYS_FILE} have the config that belongs to it."
        )
    return config, arrays


def _read_config(folder: Path) -> dict[str, Any]:
    path = folder / CONFIG_FILE
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError:
        raise WeightsError(f"{folder} is no adapter: it has no {CONFIG_FILE}.") from None
    except UnicodeDecodeError:
        raise WeightsError(f"{path} is damaged: it is no json.") from None
    except OSError as error:
        raise WeightsError(f"{path} cannot be read: {error.strerror}.") from None
    return _parsed(path, text)


def _parsed(path: Path, text: str) -> dict[str, Any]:
    try:
        config = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise WeightsError(f"{path} is damaged: {error}.") from None
    if not isinstance(config, dict):
        raise WeightsError(f"{path} is damaged: it must be a json object; got {text[:20]!r}.")
    return config


def _low_rank(folder: Path, config: Mapping[str, Any], total: int) -> LowRank:
    """What a config of ours or of mlx-lm says, for a model of `total` layers."""
    path = folder / CONFIG_FILE
    kind = config.get("fine_tune_type", "lora")
    if kind != "lora":
        raise WeightsError(
            f"{path} has fine_tune_type {kind!r}: only low-rank adapters, 'lora', are read here."
        )
    parameters = config.get("lora_parameters")
    if not isinstance(parameters, dict) or not {"rank", "scale"} <= parameters.keys():
        raise WeightsError(f"{path} is damaged: it has no lora_parameters with rank and scale.")
    keys = parameters.get("keys")
    if keys is not None and not (
        isinstance(keys, list) and all(isinstance(key, str) for key in keys)
    ):
        raise WeightsError(f"{path} is damaged: keys must be a list of names; got {keys!r}.")
    num_layers = config.get("num_layers", -1)
    try:
        return LowRank(
            rank=parameters["rank"],
            scale=parameters["scale"],
            dropout=parameters.get("dropout", 0.0),
            keys=KEYS if keys is None else tuple(keys),
            num_layers=None if num_layers in (-1, total) else num_layers,
        )
    except UserError as error:
        raise WeightsError(f"{path} cannot be used: {error}") from None


def _require_base(folder: Path, config: Mapping[str, Any], model: ESM1) -> None:
    base = config.get("base")
    if base is None:
        warnings.warn(
            f"{folder} does not say which model it was made for, so that nobody can tell whether "
            f"these weights are the right ones.",
            WeightsWarning,
            stacklevel=3,
        )
        return
    if not isinstance(base, dict) or not {"name", "fingerprint"} <= base.keys():
        raise WeightsError(f"{folder / CONFIG_FILE} is damaged: base has no name and fingerprint.")
    found = fingerprint_of_base(model)
    if found != base["fingerprint"]:
        raise WeightsError(
            f"{folder} is an adapter of {base['name']} (fingerprint {base['fingerprint']}), and "
            f"the weights given are others (fingerprint {found}): give those that it was made for."
        )


def _require_numbers(folder: Path, arrays: Mapping[str, mx.array]) -> None:
    for name, array in arrays.items():
        if not mx.issubdtype(array.dtype, mx.floating):
            raise WeightsError(f"{folder} is damaged: {name} must be floats; got {array.dtype}.")
        if not mx.isfinite(array).all():
            raise WeightsError(f"{folder} is damaged: {name} has numbers that are NaN or infinite.")


def _shapes(model: ESM1, low_rank: LowRank) -> dict[str, tuple[int, ...]]:
    """Those of the arrays that the products of `low_rank` have, before they are made."""
    shapes: dict[str, tuple[int, ...]] = {}
    for name, layer in layers_beside(model, low_rank).items():
        outputs, inputs = layer.weight.shape
        shapes[f"{name}.lora_a"] = (inputs, low_rank.rank)
        shapes[f"{name}.lora_b"] = (low_rank.rank, outputs)
    return shapes


def _require_fit(
    folder: Path, arrays: Mapping[str, mx.array], wanted: Mapping[str, tuple[int, ...]]
) -> None:
    if missing := sorted(wanted.keys() - arrays.keys()):
        raise WeightsError(f"{folder} does not fit its config: it lacks {some_of(missing)}.")
    if extra := sorted(arrays.keys() - wanted.keys()):
        raise WeightsError(f"{folder} does not fit its config: it has also {some_of(extra)}.")
    for name, shape in wanted.items():
        if arrays[name].shape != shape:
            raise WeightsError(
                f"{folder} does not fit the weights: {name} must have shape {shape}; got "
                f"{arrays[name].shape}."
            )
