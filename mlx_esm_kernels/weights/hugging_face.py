"""Folders of Hugging Face's transformers: config.json beside the weights, in one file or several.

`EsmForMaskedLM`, or `EsmModel`, with learned positions is ESM-1b or ESM-1v, with rotary ones ESM-2.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import mlx.core as mx

from ..data.alphabet import ESM1B, Alphabet
from ..models.config import OBJECTIVES, ESM1Config
from ..ops.angles import BASE
from .frequencies import with_frequencies
from .names import FAMILY, inner_state, what_it_is, without_prefix
from .opened import OpenedWeights, Tensor, WeightsError
from .recognising import recognise
from .safetensors_file import open_safetensors
from .torch_file import as_tensor, load_torch

_FILES = ("model.safetensors", "pytorch_model.bin")
_OTHER_FILES = {
    "tf_model.h5": "TensorFlow",
    "flax_model.msgpack": "Flax",
    "adapter_model.safetensors": "an adapter (LoRA)",
    "adapter_model.bin": "an adapter (LoRA)",
    "model.onnx": "ONNX",
}
# transformers' own defaults, which are left out of config.json, and are not those of ESM-1b.
_DEFAULTS: dict[str, Any] = {
    "hidden_size": 768,
    "num_hidden_layers": 12,
    "num_attention_heads": 12,
    "intermediate_size": 3072,
    "max_position_embeddings": 1026,
    "layer_norm_eps": 1e-12,
    "emb_layer_norm_before": None,
    "token_dropout": False,
    "hidden_act": "gelu",
    "position_embedding_type": "absolute",
    "rope_theta": BASE,
    "is_folding_model": False,
    "is_decoder": False,
    "add_cross_attention": False,
    "tie_word_embeddings": True,
}
_LANDMARKS = (
    "embeddings.word_embeddings.weight",
    "encoder.layer.0.intermediate.dense.weight",
)
# Buffers and heads that say nothing about residues.
_IGNORED = re.compile(r"esm\.embeddings\.position_ids|esm\.pooler\..*|.*\.inv_freq")
# Which rotary models of older transformers have, and do not use.
_POSITIONS = "esm.embeddings.position_embeddings.weight"
_OUTPUT, _TABLE = "lm_head.decoder.weight", "esm.embeddings.word_embeddings.weight"
_OUTPUT_BIAS, _BIAS = "lm_head.decoder.bias", "lm_head.bias"
_CONTACT = "contact_head.regression.weight"

_NAMES = {
    "embed_tokens": "esm.embeddings.word_embeddings",
    "embed_positions": "esm.embeddings.position_embeddings",
    "emb_layer_norm_before": "esm.embeddings.layer_norm",
    "emb_layer_norm_after": "esm.encoder.emb_layer_norm_after",
    "contact_head": "esm.contact_head",
    "lm_head": "lm_head",
}
_LAYER_NAMES = {
    "self_attn.q_proj": "attention.self.query",
    "self_attn.k_proj": "attention.self.key",
    "self_attn.v_proj": "attention.self.value",
    "self_attn.out_proj": "attention.output.dense",
    "self_attn_layer_norm": "attention.LayerNorm",
    "final_layer_norm": "LayerNorm",
    "fc1": "intermediate.dense",
    "fc2": "output.dense",
}


def read_hugging_face(folder: Path, file: Path | None = None) -> OpenedWeights:
    """Open a folder of transformers.

    Args:
        folder: with config.json in it.
        file: which of its files holds the weights; None: that of transformers' name.

    Raises:
        WeightsError: a file is missing or damaged, or the model is no ESM-1b, ESM-1v or ESM-2.
    """
    settings = read_settings(folder, str(folder))
    stored = _read_tensors(folder) if file is None else open_tensors(file)
    tensors = in_transformers_names(stored)
    # Heads of others may be called anything.
    if what := what_it_is(name for name in tensors if name.startswith(("esm.", "lm_head."))):
        raise WeightsError(f"{folder} has {what}; this package has {FAMILY}.")
    if is_rotary := settings["position_embedding_type"] == "rotary":
        tensors.pop(_POSITIONS, None)
    drop_tied(folder, tensors)
    alphabet = _alphabet(folder, settings)
    config = _config(folder, settings, alphabet, tensors)
    if is_rotary:
        config = with_frequencies(folder, stored, config)
    return OpenedWeights(folder, config, alphabet, tensors, name_in_transformers)


def name_in_transformers(name: str) -> str:
    """transformers' name of a parameter: `embed_tokens.weight` -> `esm.embeddings.word_...`."""
    layer = re.fullmatch(r"layers\.(\d+)\.(.+)\.(\w+)", name)
    if layer:
        return f"esm.encoder.layer.{layer[1]}.{_LAYER_NAMES[layer[2]]}.{layer[3]}"
    first, rest = name.split(".", 1)
    return f"{_NAMES[first]}.{rest}"


def in_transformers_names(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Tensors by the names that they have in an EsmForMaskedLM of today, less mere buffers.

    EsmModel and models with other heads have the encoder under other names, and what wraps a model
    puts names of its own before.
    """
    named = without_prefix(tensors, _LANDMARKS, "esm.")
    return {_today(name): tensor for name, tensor in named.items() if not _IGNORED.fullmatch(name)}


def _today(name: str) -> str:
    """The name in today's transformers, which may still write the older names of LayerNorm."""
    name = re.sub(r"LayerNorm\.gamma$", "LayerNorm.weight", name)
    return re.sub(r"LayerNorm\.beta$", "LayerNorm.bias", name)


def _read_tensors(folder: Path) -> dict[str, Tensor]:
    """The tensors of all the files that hold the weights."""
    for name in _FILES:
        if (folder / name).exists():
            return open_tensors(folder / name)
        index = folder / f"{name}.index.json"
        if index.exists():
            return _read_shards(folder, index)
    for name, what in _OTHER_FILES.items():
        if (folder / name).exists():
            raise WeightsError(
                f"{folder} holds weights of {what} alone ({name}); save them for PyTorch "
                f"(save_pretrained), as {_FILES[0]}."
            )
    raise WeightsError(
        f"{folder} holds no weights: expected {' or '.join(_FILES)}, or one of them with "
        f".index.json behind it."
    )


def _read_shards(folder: Path, index: Path) -> dict[str, Tensor]:
    shards = _read_json(index).get("weight_map")
    if not isinstance(shards, dict) or not all(isinstance(file, str) for file in shards.values()):
        raise WeightsError(f"{index} must say in weight_map which file has each tensor.")
    tensors: dict[str, Tensor] = {}
    for file in sorted(set(shards.values())):
        if Path(file).name != file:
            raise WeightsError(f"{index} names {file}, which is not a file of its own folder.")
        tensors |= open_tensors(folder / file)
    if missing := sorted(set(shards) - set(tensors)):
        raise WeightsError(
            f"{index} promises {missing[0]} in {shards[missing[0]]}, which does not have it."
        )
    return tensors


def open_tensors(path: Path) -> dict[str, Tensor]:
    """The tensors of a file of either format.

    Raises:
        WeightsError: it cannot be opened, or holds something else.
    """
    if recognise(path) == "safetensors":
        return open_safetensors(path)[0]
    state = inner_state(load_torch(path))
    if not isinstance(state, Mapping):
        raise WeightsError(f"{path} must hold tensors by name; got a {type(state).__name__}.")
    return {str(name): as_tensor(path, str(name), value) for name, value in state.items()}


def drop_tied(path: Path, tensors: dict[str, Tensor]) -> None:
    """Leave out second copies of the output's numbers, under transformers' names.

    Raises:
        WeightsError: they are other numbers.
    """
    for copy, original in ((_OUTPUT, _TABLE), (_OUTPUT_BIAS, _BIAS)):
        if copy not in tensors or original not in tensors:
            continue
        tied, table = tensors.pop(copy), tensors[original]
        if tied.shape != table.shape or not mx.array_equal(tied.read(), table.read()):
            raise WeightsError(
                f"{path}: {copy} and {original} must be the same numbers, since the output "
                f"projection is the token table; they differ."
            )


def read_settings(folder: Path, name: str) -> dict[str, Any]:
    """What config.json says of a model of the family, with transformers' defaults.

    Args:
        folder: with config.json in it.
        name: what messages call it.

    Raises:
        WeightsError: there is no such file, or the model is another one; the message says which.
    """
    if not (folder / "config.json").exists():
        raise WeightsError(_without_config(folder, name))
    settings = {**_DEFAULTS, **_read_json(folder / "config.json")}
    if settings.get("model_type") != "esm":
        raise WeightsError(
            f"{name} has a model of type {settings.get('model_type')!r}; this package has those "
            f"of type 'esm', which are ESM-1b, ESM-1v and ESM-2."
        )
    if settings["is_folding_model"]:
        raise WeightsError(f"{name} is ESMFold (is_folding_model); this package has {FAMILY}.")
    if settings.get("quantization_config") or settings.get("quantization"):
        raise WeightsError(
            f"{name} has quantised weights; give those in float32, float16 or bfloat16 from which "
            f"they were made."
        )
    if settings["position_embedding_type"] not in ("absolute", "rotary"):
        raise WeightsError(
            f"{name}: position_embedding_type must be 'absolute', as in ESM-1b, or 'rotary', as in "
            f"ESM-2; got {settings['position_embedding_type']!r}."
        )
    settings["rope_theta"] = _rope_theta(settings)
    for setting in ("hidden_act", "rope_theta", "is_decoder", "add_cross_attention"):
        if settings[setting] != _DEFAULTS[setting]:
            raise WeightsError(
                f"{name}: {setting} must be {_DEFAULTS[setting]!r}, as in ESM; "
                f"got {settings[setting]!r}."
            )
    return settings


def _rope_theta(settings: Mapping[str, Any]) -> Any:
    """The base of the frequencies, which newer versions of transformers have among others."""
    among = settings.get("rope_parameters")
    return among.get("rope_theta", BASE) if isinstance(among, dict) else settings["rope_theta"]


def _alphabet(folder: Path, settings: Mapping[str, Any]) -> Alphabet:
    """The alphabet that vocab.txt or config.json spell out; ESM-1b's where neither does."""
    vocabulary = folder / "vocab.txt"
    tokens = settings.get("vocab_list")
    try:
        if vocabulary.exists():
            tokens = vocabulary.read_text(encoding="utf-8").split()
        alphabet = ESM1B if tokens is None else Alphabet.from_dict({"tokens": tokens})
    except (OSError, ValueError) as error:
        raise WeightsError(f"{folder} has a vocabulary that cannot be used: {error}") from None
    for name, ours in (
        ("vocab_size", len(alphabet)),
        ("pad_token_id", alphabet.padding_idx),
        ("mask_token_id", alphabet.mask_idx),
    ):
        if settings.get(name) not in (None, ours):
            raise WeightsError(
                f"{folder}: {name} must be {ours}, as in its alphabet; got {settings[name]!r}."
            )
    return alphabet


def _config(
    folder: Path,
    settings: Mapping[str, Any],
    alphabet: Alphabet,
    tensors: Mapping[str, Tensor],
) -> ESM1Config:
    positions: dict[str, Any] = {"rotary_positions": True}
    if settings["position_embedding_type"] == "absolute":
        rows = settings["max_position_embeddings"]  # which means nothing where they are rotary
        rows = rows - alphabet.padding_idx - 1 if isinstance(rows, int) else rows
        positions = {"max_positions": rows}
    try:
        return ESM1Config.of(
            alphabet,
            **positions,
            num_layers=settings["num_hidden_layers"],
            embed_dim=settings["hidden_size"],
            ffn_dim=settings["intermediate_size"],
            num_heads=settings["num_attention_heads"],
            token_dropout=settings["token_dropout"],
            emb_layer_norm_before=bool(settings["emb_layer_norm_before"]),
            layer_norm_eps=settings["layer_norm_eps"],
            contact_head=name_in_transformers(_CONTACT) in tensors,
            language_head=any(name.startswith("lm_head.") for name in tensors),
            # A key of ours; somebody else's of this name may mean anything.
            objective=found if (found := settings.get("objective")) in OBJECTIVES else "mlm",
        )
    except ValueError as error:
        raise WeightsError(f"{folder} has a config.json that cannot be used: {error}") from None


def _without_config(folder: Path, name: str) -> str:
    """What a folder without config.json is, called by some name."""
    if any((folder / place / "adapter_config.json").exists() for place in ("", "adapters")):
        return (
            f"{name} has an adapter (LoRA), not a model: give its base as the weights, and it as "
            f"the adapter (--adapter)."
        )
    some = sorted(path.name for path in folder.iterdir())[:3]
    held = f"; it holds {', '.join(some)}" if some else "; it is empty"
    return f"{name} is a folder without config.json, so no model of transformers{held}."


def _read_json(path: Path) -> dict[str, Any]:
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise WeightsError(
            f"{path.parent} is a folder without {path.name}, so no model of transformers."
        ) from None
    except (OSError, ValueError, RecursionError) as error:
        raise WeightsError(f"{path} cannot be read: {error}.") from None
    if not isinstance(value, dict):
        raise WeightsError(f"{path} must be a json object; got {type(value).__name__}.")
    return value
