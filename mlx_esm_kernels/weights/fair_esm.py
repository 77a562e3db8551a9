"""fair-esm's .pt files: `{"args": Namespace, "model": state dict}`.

ESM-1b and ESM-1v are `roberta_large`, with keys under `encoder.sentence_encoder.` and `encoder.`,
ESM-1 is `protein_bert_base`, with keys under `decoder.`. The contact regression lies beside a file
NAME.pt as NAME-contact-regression.pt. What is done to both is what fair-esm 2.0.0 does
(esm/pretrained.py).
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import mlx.core as mx

from ..data.alphabet import ESM1_ALPHABET, ESM1B
from ..models.config import ESM1Config
from .names import without_prefix
from .opened import OpenedWeights, Tensor, WeightsError
from .torch_file import as_tensor, load_torch

_REGRESSION = ("contact_head.regression.weight", "contact_head.regression.bias")
_ARGUMENTS = ("layers", "embed_dim", "ffn_embed_dim", "attention_heads")
# A buffer without meaning, which ESM-1's positions bring along.
_IGNORED = ("embed_positions._float_tensor",)
# What the names of the arguments of an architecture begin with.
_PREFIXES = {"roberta_large": "encoder_", "protein_bert_base": "decoder_"}


def read_fair_esm(path: Path, data: Any) -> OpenedWeights:
    """A .pt file of fair-esm, which holds `data`, and its contact regression if that is beside it.

    Raises:
        WeightsError: it is no ESM-1, ESM-1b or ESM-1v.
    """
    args, state = _parts(path, data)
    architecture = args.get("arch")
    if architecture not in _PREFIXES:
        raise WeightsError(
            f"{path} has the architecture {architecture!r}; this package has those of ESM-1 "
            f"(protein_bert_base), ESM-1b and ESM-1v (roberta_large)."
        )
    is_esm1 = architecture == "protein_bert_base"
    args = _renamed(args, lambda name: _after(name, _PREFIXES[architecture]))
    tensors = fair_esm_tensors(path, state, clear_mask=not is_esm1)
    config = _config(path, args, tensors, is_esm1)
    if is_esm1 and args.get("final_bias") is False and "embed_out" in tensors:
        rows, dtype = tensors["embed_out"].shape[:1], tensors["embed_out"].dtype
        tensors["embed_out_bias"] = Tensor(rows, dtype, lambda: mx.zeros(rows))
    return OpenedWeights(path, config, ESM1_ALPHABET if is_esm1 else ESM1B, tensors)


def is_fair_esm(data: Any) -> bool:
    """Whether what a file of torch holds is, or was meant to be, one of fair-esm's."""
    return isinstance(data, Mapping) and ("args" in data or "cfg" in data)


def fair_esm_tensors(
    path: Path, state: Mapping[str, Any], *, clear_mask: bool
) -> dict[str, Tensor]:
    """The tensors of fair-esm's state dict by our names, with the regression beside the file."""
    named = without_prefix(state, ("embed_tokens.weight", "layers.0.fc1.weight"))
    if clear_mask:
        _clear_mask(path, named)
    named |= _regression(path)
    return {
        name: as_tensor(path, name, value) for name, value in named.items() if name not in _IGNORED
    }


def _parts(path: Path, data: Any) -> tuple[dict[str, Any], dict[str, Any]]:
    """The arguments and the state dict of a file, by name."""
    if isinstance(data, Mapping) and "cfg" in data and "args" not in data:
        raise WeightsError(f"{path} is an ESM-2 model; this package has ESM-1, ESM-1b and ESM-1v.")
    if not isinstance(data, Mapping) or not {"args", "model"} <= data.keys():
        raise WeightsError(
            f'{path} is no model of fair-esm: expected {{"args": ..., "model": ...}}; '
            f"got {_describe(data)}."
        )
    args, state = data["args"], data["model"]
    if not isinstance(args, argparse.Namespace):
        raise WeightsError(
            f"{path}: args must be an argparse.Namespace; got {type(args).__name__}."
        )
    return vars(args), _state(path, state)


def _state(path: Path, state: Any) -> dict[str, Any]:
    if not isinstance(state, Mapping) or not all(isinstance(name, str) for name in state):
        raise WeightsError(f"{path}: model must be tensors by name; got {_describe(state)}.")
    return dict(state)


def _regression(path: Path) -> dict[str, Any]:
    """The contact regression beside a file, which ESM-1v does not have."""
    beside = path.with_name(f"{path.stem}-contact-regression.pt")
    if not beside.exists():
        return {}
    data = load_torch(beside)
    if not isinstance(data, dict) or "model" not in data:
        raise WeightsError(
            f'{beside} is no contact regression: expected {{"model": ...}}; got {_describe(data)}.'
        )
    state = _state(beside, data["model"])
    if set(state) != set(_REGRESSION):
        raise WeightsError(
            f"{beside} is no contact regression: it must hold {' and '.join(_REGRESSION)}; "
            f"got {_describe(state)}."
        )
    return state


def _clear_mask(path: Path, state: dict[str, Any]) -> None:
    """Zero the token row of <mask>, and take the output projection to be the token table."""
    table, output = state.get("embed_tokens.weight"), state.pop("lm_head.weight", None)
    if table is None:
        return  # `build_model` says what is missing
    expected = as_tensor(path, "embed_tokens.weight", table).shape
    if len(expected) != 2 or expected[0] != len(ESM1B):
        raise WeightsError(
            f"{path}: embed_tokens.weight must have shape ({len(ESM1B)}, C), a row for each "
            f"token; got {expected}."
        )
    rows = [row for row in range(len(ESM1B)) if row != ESM1B.mask_idx]
    if output is not None:
        found = as_tensor(path, "lm_head.weight", output).shape
        if found != expected or not table[rows].equal(output[rows]):
            raise WeightsError(
                f"{path}: lm_head.weight and embed_tokens.weight must be the same numbers, since "
                f"the output projection is the token table; they differ."
            )
    # A copy: other names may share its memory. Token dropout zeroes this row anyway.
    table = table.detach().clone()
    table[ESM1B.mask_idx] = 0
    state["embed_tokens.weight"] = table


def _config(
    path: Path, args: Mapping[str, Any], tensors: Mapping[str, Tensor], is_esm1: bool
) -> ESM1Config:
    needed = _ARGUMENTS if is_esm1 else (*_ARGUMENTS, "max_positions")
    if missing := [name for name in needed if name not in args]:
        raise WeightsError(f"{path}: args must say {', '.join(missing)}; they do not.")
    layers, width, ffn, heads = (args[name] for name in _ARGUMENTS)
    fields: dict[str, Any] = {
        "num_layers": layers,
        "embed_dim": width,
        "ffn_dim": ffn,
        "num_heads": heads,
        "contact_head": any(name in tensors for name in _REGRESSION),
        "language_head": any(name.startswith(("lm_head.", "embed_out")) for name in tensors),
    }
    try:
        if is_esm1:
            return ESM1Config.esm1(**fields)
        return ESM1Config(
            **fields,
            max_positions=args["max_positions"],
            token_dropout=bool(args.get("token_dropout", False)),
            emb_layer_norm_before=any(n.startswith("emb_layer_norm_before") for n in tensors),
        )
    except ValueError as error:
        raise WeightsError(f"{path} has arguments that cannot be used: {error}") from None


def _renamed(values: Mapping[str, Any], rename: Callable[[str], str]) -> dict[str, Any]:
    return {rename(name): value for name, value in values.items()}


def _after(name: str, prefix: str) -> str:
    """What comes after `prefix` in `name`; all of it where the prefix is not there."""
    return name.split(prefix, 1)[-1]


def _describe(value: Any) -> str:
    if not isinstance(value, Mapping):
        return f"a {type(value).__name__}"
    names = [str(name) for name in value]
    more = f" and {len(names) - 3} more" if len(names) > 3 else ""
    return f"a dict with {', '.join(names[:3]) or 'nothing'}{more}"
