"""Tensors without a config: the sizes of the model are read off their shapes."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..data.alphabet import ESM1_ALPHABET, ESM1B
from ..models.config import ESM1Config
from .fair_esm import fair_esm_tensors
from .frequencies import head_dim_of, is_frequencies, with_frequencies
from .hugging_face import drop_tied, in_transformers_names, name_in_transformers
from .names import FAMILY, inner_state, what_it_is
from .opened import OpenedWeights, Tensor, WeightsError
from .torch_file import as_tensor

# The heads of the released models, by their width; shapes do not tell them.
_HEADS = {768: 12, 1280: 20}
_HEADS_OF_ESM2 = {320: 20, 480: 20, 640: 20, 1280: 20, 2560: 40, 5120: 40}
_KV_BIAS, _POSITIONS = "self_attn.bias_k", "embed_positions.weight"
_REGRESSION = "contact_head.regression.weight"


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
    # What fair-esm does for ESM-1b and ESM-1v, which alone have a table of positions.
    has_table = any(name.endswith(_POSITIONS) for name in state)
    tensors = fair_esm_tensors(path, state, clear_mask=has_table)
    frequencies = {n: as_tensor(path, n, p) for n, p in state.items() if is_frequencies(n)}
    return _Bare(path, tensors, str, frequencies).opened()


def open_bare(path: Path, tensors: Mapping[str, Tensor]) -> OpenedWeights:
    """The model of tensors by transformers' names."""
    if what_it_is(tensors) or not any(
        name.endswith("embeddings.word_embeddings.weight") for name in tensors
    ):
        raise WeightsError(_no_model(path, tensors))
    frequencies = {name: tensor for name, tensor in tensors.items() if is_frequencies(name)}
    named = in_transformers_names(tensors)
    drop_tied(path, named)
    return _Bare(path, named, name_in_transformers, frequencies).opened()


def _no_model(path: Path, names: Mapping[str, Any]) -> str:
    some = ", ".join(sorted(names)[:3]) or "nothing"
    what = what_it_is(names)
    return (
        f"{path} is no model that this package has ({FAMILY}): "
        + (f"it is {what}" if what else "it has no table of tokens")
        + f"; it holds {some}{' ...' if len(names) > 3 else ''}."
    )


@dataclass(frozen=True)
class _Bare:
    """Tensors without a config.

    Attributes:
        path: of the file.
        tensors: by the names that `name_of` gives, less mere buffers.
        name_of: gives the name in `tensors` of a parameter of the model.
        frequencies: of rotary positions, which are buffers.
    """

    path: Path
    tensors: dict[str, Tensor]
    name_of: Callable[[str], str]
    frequencies: Mapping[str, Tensor]

    def opened(self) -> OpenedWeights:
        """The model of them, once its sizes are known."""
        _, width = self._shape("embed_tokens.weight", 2)
        layers = 0
        while self._has(f"layers.{layers}.fc1.weight"):
            layers += 1
        is_esm1 = any(name.endswith(_KV_BIAS) for name in self.tensors)
        before = self._has("emb_layer_norm_before.weight")
        # Buffers are left out of some files, but ESM-1b without its table is no ESM-2.
        is_esm2 = bool(self.frequencies) or not (is_esm1 or before or self._has(_POSITIONS))
        fields: dict[str, Any] = {
            "num_layers": layers,
            "embed_dim": width,
            "ffn_dim": self._shape("layers.0.fc1.weight", 2)[0],
            "num_heads": self._heads(layers, width, is_esm2),
            "contact_head": self._has(_REGRESSION),
            "language_head": any(n.startswith(("lm_head.", "embed_out")) for n in self.tensors),
        }
        alphabet = ESM1_ALPHABET if is_esm1 else ESM1B
        try:
            if is_esm1:
                config = ESM1Config.esm1(**fields)
            elif is_esm2:
                config = ESM1Config.esm2(**fields, emb_layer_norm_before=before)
            else:
                longest = self._shape(_POSITIONS, 2)[0] - ESM1B.padding_idx - 1
                config = ESM1Config(**fields, max_positions=longest, emb_layer_norm_before=before)
        except ValueError as error:
            if isinstance(error, WeightsError):
                raise
            raise WeightsError(f"{self.path} has sizes that cannot be used: {error}") from None
        if is_esm2:
            config = with_frequencies(self.path, self.frequencies, config)
            # Rotary models of older transformers have a table, and do not use it.
            self.tensors.pop(self.name_of(_POSITIONS), None)
        return OpenedWeights(self.path, config, alphabet, self.tensors, self.name_of)

    def _has(self, name: str) -> bool:
        return self.name_of(name) in self.tensors

    def _shape(self, name: str, length: int) -> tuple[int, ...]:
        named = self.name_of(name)
        tensor = self.tensors.get(named)
        if tensor is None or len(tensor.shape) != length:
            raise WeightsError(f"{self.path} has no {named} by which its sizes could be told.")
        return tensor.shape

    def _heads(self, layers: int, width: int, is_esm2: bool) -> int:
        """The number of attention heads.

        From the frequencies, half as many as a head is wide, or from the contact regression, which
        has a weight for each head of each layer; else that of the released models.
        """
        if head_dim := head_dim_of(self.frequencies):
            return width // head_dim
        regression = self.tensors.get(self.name_of(_REGRESSION))
        if regression is not None and len(regression.shape) == 2 and layers:
            return regression.shape[1] // layers
        released = _HEADS_OF_ESM2 if is_esm2 else _HEADS
        if width in released:
            return released[width]
        raise WeightsError(
            f"{self.path} holds tensors alone, which do not say how many attention heads the model "
            f"has: give fair-esm's file with its args or cfg, or a folder with config.json beside "
            f"the weights."
        )
