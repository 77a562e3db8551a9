"""Tensors without a config: the sizes of the model are read off their shapes."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from ..data.alphabet import ESM1_ALPHABET, ESM1B
from ..models.config import ESM1Config
from .fair_esm import fair_esm_tensors
from .hugging_face import in_transformers_names, name_in_transformers
from .names import inner_state, what_it_is
from .opened import OpenedWeights, Tensor, WeightsError
from .torch_file import as_tensor

# The heads of the released models, by their width; shapes do not tell them.
_RELEASED_HEADS = {768: 12, 1280: 20}


def read_bare_state(path: Path, data: Any) -> OpenedWeights:
    """The model of a file of torch that holds a state dict alone, fair-esm's or transformers'.

    Raises:
        WeightsError: it holds no such thing, which is named, or does not tell a size.
    """
    state = inner_state(data)
    if not isinstance(state, Mapping) or not all(isinstance(name, str) for name in state):
        raise WeightsError(
            f"{path} is no model of fair-esm: expected tensors by name; got a "
            f"{type(state).__name__}."
        )
    if any(name.endswith("embeddings.word_embeddings.weight") for name in state):
        tensors = {name: as_tensor(path, name, value) for name, value in state.items()}
        return open_bare(path, tensors)
    if what_it_is(state) or not any(name.endswith("embed_tokens.weight") for name in state):
        raise WeightsError(_no_model(path, state))
    is_esm1 = any(name.endswith("self_attn.bias_k") for name in state)
    tensors = fair_esm_tensors(path, state, clear_mask=not is_esm1)
    return _opened(path, tensors, str)


def open_bare(path: Path, tensors: Mapping[str, Tensor]) -> OpenedWeights:
    """The model of tensors by transformers' names."""
    if what_it_is(tensors) or not any(
        name.endswith("embeddings.word_embeddings.weight") for name in tensors
    ):
        raise WeightsError(_no_model(path, tensors))
    return _opened(path, in_transformers_names(tensors), name_in_transformers)


def _no_model(path: Path, names: Mapping[str, Any]) -> str:
    some = ", ".join(sorted(names)[:3]) or "nothing"
    what = what_it_is(names)
    return (
        f"{path} is no model that this package has (ESM-1, ESM-1b, ESM-1v): "
        + (f"it is {what}" if what else "it has no table of tokens")
        + f"; it holds {some}{' ...' if len(names) > 3 else ''}."
    )


def _opened(path: Path, tensors: dict[str, Tensor], name_of: Callable[[str], str]) -> OpenedWeights:
    def shape(name: str, length: int) -> tuple[int, ...]:
        tensor = tensors.get(name_of(name))
        if tensor is None or len(tensor.shape) != length:
            raise WeightsError(f"{path} has no {name_of(name)} by which its sizes could be told.")
        return tensor.shape

    _, width = shape("embed_tokens.weight", 2)
    layers = 0
    while name_of(f"layers.{layers}.fc1.weight") in tensors:
        layers += 1
    ffn = shape("layers.0.fc1.weight", 2)[0]
    is_esm1 = name_of("layers.0.self_attn.q_proj.weight") in tensors and any(
        name.endswith("self_attn.bias_k") for name in tensors
    )
    fields: dict[str, Any] = {
        "num_layers": layers,
        "embed_dim": width,
        "ffn_dim": ffn,
        "num_heads": _heads(path, tensors, name_of, layers, width),
        "contact_head": name_of("contact_head.regression.weight") in tensors,
        "language_head": any(name.startswith(("lm_head.", "embed_out")) for name in tensors),
    }
    try:
        if is_esm1:
            return OpenedWeights(path, ESM1Config.esm1(**fields), ESM1_ALPHABET, tensors, name_of)
        rows = shape("embed_positions.weight", 2)[0]
        before = name_of("emb_layer_norm_before.weight") in tensors
        config = ESM1Config(
            **fields,
            max_positions=rows - ESM1B.padding_idx - 1,
            emb_layer_norm_before=before,
        )
    except ValueError as error:
        if isinstance(error, WeightsError):
            raise
        raise WeightsError(f"{path} has sizes that cannot be used: {error}") from None
    return OpenedWeights(path, config, ESM1B, tensors, name_of)


def _heads(
    path: Path,
    tensors: Mapping[str, Tensor],
    name_of: Callable[[str], str],
    layers: int,
    width: int,
) -> int:
    """The number of attention heads: from the contact regression, which has a weight for each."""
    regression = tensors.get(name_of("contact_head.regression.weight"))
    if regression is not None and len(regression.shape) == 2 and layers:
        return regression.shape[1] // layers
    if width in _RELEASED_HEADS:
        return _RELEASED_HEADS[width]
    raise WeightsError(
        f"{path} holds tensors alone, which do not say how many attention heads the model has: "
        f"give fair-esm's file with its args, or a folder with config.json beside the weights."
    )
