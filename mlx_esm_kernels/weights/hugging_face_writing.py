"""Folders that Hugging Face's transformers loads: config.json, the weights, and its tokenizer's.

What is written, and what `EsmForMaskedLM` has no place for, follows transformers 5.24.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import mlx.core as mx
from mlx.utils import tree_flatten

from ..data.alphabet import Alphabet
from ..models.config import ESM1Config
from ..models.dtypes import DTYPES, STORED
from ..models.esm1 import ESM1
from ..models.int8 import require_unquantised
from ..models.low_rank import low_rank_layers
from ..ops.angles import rotary_frequencies
from ..system.whole_file import OutputError, require_new_folder, whole_folder
from .hugging_face import name_in_transformers
from .safetensors_file import write_safetensors

SHARD_BYTES = 5 * 10**9  # of one file of weights; what is more goes into several
_WEIGHTS = "model.safetensors"
_SPECIALS = {f"{name}_token": f"<{name}>" for name in ("cls", "eos", "mask", "pad", "unk")}
# Its contact head looks for eos by this number, whatever the vocabulary says.
_EOS_OF_CONTACTS = 2


def save_hugging_face(folder: Path, model: ESM1) -> None:
    """Write a model as a new folder that transformers' `from_pretrained` loads.

    It appears whole or not at all. The tensors have transformers' names and the dtype of the
    parameters; of more than `SHARD_BYTES` there are several files, with an index. What transformers
    has and the model has not is left out, and is new there (`new_in_transformers`): no number is
    made up.

    Args:
        folder: where to write; the folder around it must exist, and nothing be in it.
        model: the model.

    Raises:
        ValueError: the model has an adapter.
        UserError: its weights are int8.
        OutputError: transformers' ESM is another network, or the folder cannot be written.
    """
    if low_rank_layers(model):
        raise ValueError(
            "[save_hugging_face] the model has an adapter beside its layers, which transformers' "
            "own folders do not hold: fuse_low_rank adds it to the weights."
        )
    require_unquantised(model, "the model", "written for transformers")
    require_in_transformers(folder, model.config, model.alphabet)
    require_new_folder(folder)
    parameters = dict(tree_flatten(model.parameters()))
    with whole_folder(folder) as half_done:
        _write_json(half_done / "config.json", _config(model.config, parameters))
        _write_tokenizer(half_done, model.config, model.alphabet)
        _write_tensors(half_done, _tensors(model.config, parameters), parameters)


def require_in_transformers(folder: Path, config: ESM1Config, alphabet: Alphabet) -> None:
    """Refuse a model that transformers' ESM cannot express, before anything is written.

    Raises:
        OutputError: it cannot; the message says why.
    """
    switches = {
        "sinusoidal positions": config.sinusoidal_positions,
        "a scaled embedding": config.scale_embedding,
        "one more key and value in each attention": config.bias_kv,
        "no LayerNorm after the last layer": not config.emb_layer_norm_after,
        "an output that is not its token table": config.language_head and not config.tied_output,
        "proteins that do not stand between <cls> and <eos>": alphabet.num_specials < 2,
        f"contacts and an <eos> that is not token {_EOS_OF_CONTACTS}": config.contact_head
        and alphabet.eos_idx != _EOS_OF_CONTACTS,
        "tokens that are no words of a line each": any(
            token.split() != [token] for token in alphabet.tokens
        ),
    }
    if found := [what for what, is_so in switches.items() if is_so]:
        raise OutputError(
            f"{folder} cannot be written: transformers' ESM is ESM-1b, ESM-1v and ESM-2, and this "
            f"model has {', '.join(found)}; a .safetensors file of ours takes it."
        )


def new_in_transformers(config: ESM1Config) -> str | None:
    """What transformers will say that it has made up, with what helps, in words; None: nothing."""
    missing = [] if config.contact_head else ["contact_head"]
    advice = ""
    if not config.language_head:
        missing.append("pooler")
        advice = " (EsmModel.from_pretrained takes add_pooling_layer=False)"
    if not missing:
        return None
    return (
        f"transformers will report {' and '.join(missing)} as newly initialized{advice}: "
        f"this model has none"
    )


def _config(config: ESM1Config, parameters: Mapping[str, mx.array]) -> dict[str, Any]:
    """What config.json says, by transformers' names, and `objective`, which it keeps unread."""
    ours = {} if config.objective == "mlm" else {"objective": config.objective}
    return {
        **ours,
        "architectures": ["EsmForMaskedLM" if config.language_head else "EsmModel"],
        # Not transformers' default, as the released models have none.
        "attention_probs_dropout_prob": 0.0,
        "dtype": STORED[_dtype(parameters)].name,
        "emb_layer_norm_before": config.emb_layer_norm_before,
        "eos_token_id": config.eos_idx,
        "hidden_dropout_prob": 0.0,
        "hidden_size": config.embed_dim,
        "initializer_range": 0.02,
        "intermediate_size": config.ffn_dim,
        "is_folding_model": False,
        "layer_norm_eps": config.layer_norm_eps,
        "mask_token_id": config.mask_idx,
        "max_position_embeddings": config.num_position_rows,
        "model_type": "esm",
        "num_attention_heads": config.num_heads,
        "num_hidden_layers": config.num_layers,
        "pad_token_id": config.padding_idx,
        "position_embedding_type": "rotary" if config.rotary_positions else "absolute",
        "tie_word_embeddings": True,
        "token_dropout": config.token_dropout,
        "vocab_size": config.vocab_size,
    }


def _dtype(parameters: Mapping[str, mx.array]) -> mx.Dtype:
    """That of the parameters, which transformers turns them all into; of several, float32."""
    found = {p.dtype for name, p in parameters.items() if not name.startswith("contact_head")}
    return found.pop() if len(found) == 1 else mx.float32


def _write_tokenizer(folder: Path, config: ESM1Config, alphabet: Alphabet) -> None:
    # Rotary positions have no end, as those of transformers' tokenizer where this says nothing.
    longest = {"model_max_length": config.max_positions} if config.has_position_table else {}
    (folder / "vocab.txt").write_text("\n".join(alphabet.tokens) + "\n", encoding="utf-8")
    _write_json(folder / "special_tokens_map.json", _SPECIALS)
    _write_json(
        folder / "tokenizer_config.json",
        {**_SPECIALS, **longest, "tokenizer_class": "EsmTokenizer"},
    )


def _tensors(config: ESM1Config, parameters: Mapping[str, mx.array]) -> dict[str, mx.array]:
    """The parameters by transformers' names, and its table of frequencies.

    transformers keeps that table as a tensor that must be there: one of each layer, in releases
    before 5, which the later ones read too.
    """
    tensors = {name_in_transformers(name): p for name, p in parameters.items()}
    if config.rotary_positions:
        frequencies = rotary_frequencies(config.head_dim, rounded_to=DTYPES[config.frequency_dtype])
        for layer in range(config.num_layers):
            name = f"esm.encoder.layer.{layer}.attention.self.rotary_embeddings.inv_freq"
            tensors[name] = frequencies
    if config.language_head:
        return tensors
    return {name.removeprefix("esm."): tensor for name, tensor in tensors.items()}  # EsmModel's


def _write_tensors(
    folder: Path, tensors: Mapping[str, mx.array], parameters: Mapping[str, mx.array]
) -> None:
    shards = list(_shards(tensors))
    files = [_WEIGHTS]
    if len(shards) > 1:
        files = [
            f"model-{i:05d}-of-{len(shards):05d}.safetensors" for i in range(1, len(shards) + 1)
        ]
        index = {
            "metadata": {
                "total_parameters": sum(p.size for p in parameters.values()),
                "total_size": sum(tensor.nbytes for tensor in tensors.values()),
            },
            "weight_map": {
                name: file for file, shard in zip(files, shards, strict=True) for name in shard
            },
        }
        _write_json(folder / f"{_WEIGHTS}.index.json", index)
    for name, shard in zip(files, shards, strict=True):
        write_safetensors(folder / name, shard, {"format": "pt"}, name=name)


def _shards(tensors: Mapping[str, mx.array]) -> Iterator[dict[str, mx.array]]:
    """The tensors in their order, in parts of at most `SHARD_BYTES` or of a single tensor."""
    shard: dict[str, mx.array] = {}
    size = 0
    for name, tensor in tensors.items():
        if shard and size + tensor.nbytes > SHARD_BYTES:
            yield shard
            shard, size = {}, 0
        shard[name] = tensor
        size += tensor.nbytes
    yield shard


def _write_json(path: Path, content: Mapping[str, Any]) -> None:
    path.write_text(json.dumps(content, indent=2, sort_keys=True) + "\n", encoding="utf-8")
