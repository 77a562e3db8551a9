"""fair-esm's .pt files: `{"args": Namespace, "model": state dict}`, with `cfg` in those of ESM-2.

ESM-1b and ESM-1v are `roberta_large`, with keys under `encoder.sentence_encoder.` and `encoder.`,
ESM-1 is `protein_bert_base`, with keys under `decoder.`. ESM-2 has the keys of ESM-1b, and its
arguments in `cfg["model"]`; fair-esm knows it by the file's name, we by that. The contact
regression lies beside a file NAME.pt as NAME-contact-regression.pt. What is done to both is what
fair-esm 2.0.0 does (esm/pretrained.py).
"""

from __future__ import annotations

import argparse
import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import mlx.core as mx

from ..data.alphabet import ESM1_ALPHABET, ESM1B
from ..models.config import ESM1Config
from .frequencies import is_frequencies, with_frequencies
from .names import FAMILY, what_it_is, without_prefix
from .opened import OpenedWeights, Tensor, WeightsError
from .torch_file import as_tensor, load_torch

_REGRESSION = ("contact_head.regression.weight", "contact_head.regression.bias")
_ARGUMENTS = ("layers", "embed_dim", "ffn_embed_dim", "attention_heads")
_ESM2_ARGUMENTS = ("layers", "embed_dim", "attention_heads", "token_dropout")
# Buffers: one without meaning, which ESM-1's positions bring along, and ESM-2's frequencies.
_IGNORED = re.compile(r"embed_positions\._float_tensor|.*\.rot_emb\.inv_freq")
# What the names of the arguments of an architecture begin with.
_PREFIXES = {"roberta_large": "encoder_", "protein_bert_base": "decoder_"}
# What others of fair-esm's architectures have in their names, and are called.
_OTHERS = {"msa_transformer": "an MSA Transformer", "gvp": "ESM-IF"}


def read_fair_esm(path: Path, data: Any) -> OpenedWeights:
    """A .pt file of fair-esm, which holds `data`, and its contact regression if that is beside it.

    Raises:
        WeightsError: it is no ESM-1, ESM-1b, ESM-1v or ESM-2.
    """
    if "cfg" in data and data.get("args") is None:
        return _read_esm2(path, data)
    args, state = _parts(path, data, "args", data.get("args"))
    architecture = args.get("arch")
    if not isinstance(architecture, str) or architecture not in _PREFIXES:
        what = next((what for word, what in _OTHERS.items() if word in str(architecture)), "")
        raise WeightsError(
            f"{path} has the architecture {architecture!r}{what and f', it is {what}'}; this "
            f"package has {FAMILY} (protein_bert_base, roberta_large, and files with a cfg)."
        )
    is_esm1 = architecture == "protein_bert_base"
    args = _without(_PREFIXES[architecture], args)
    tensors = fair_esm_tensors(path, state, clear_mask=not is_esm1)
    config = _config(path, args, tensors, is_esm1)
    if is_esm1 and args.get("final_bias") is False and "embed_out" in tensors:
        rows, dtype = tensors["embed_out"].shape[:1], tensors["embed_out"].dtype
        tensors["embed_out_bias"] = Tensor(rows, dtype, lambda: mx.zeros(rows))
    return OpenedWeights(path, config, ESM1_ALPHABET if is_esm1 else ESM1B, tensors)


def _read_esm2(path: Path, data: Mapping[str, Any]) -> OpenedWeights:
    cfg = data["cfg"]
    args, state = _parts(
        path, data, "cfg", cfg.get("model") if isinstance(cfg, Mapping) else cfg, dicts=True
    )
    if what := what_it_is(state):
        raise WeightsError(f"{path} is {what}; this package has {FAMILY}.")
    args = _without("encoder_", args)
    _require_arguments(path, "cfg", args, _ESM2_ARGUMENTS)
    tensors = fair_esm_tensors(path, state, clear_mask=False)
    layers, width, heads, token_dropout = (args[name] for name in _ESM2_ARGUMENTS)
    try:
        config = ESM1Config.esm2(
            layers, width, heads, token_dropout=token_dropout, **_heads_of(tensors)
        )
    except (TypeError, ValueError) as error:  # a width that is no number cannot be multiplied
        raise WeightsError(f"{path} has arguments that cannot be used: {error}") from None
    frequencies = {n: as_tensor(path, n, p) for n, p in state.items() if is_frequencies(n)}
    config = with_frequencies(path, frequencies, config)
    return OpenedWeights(path, config, ESM1B, tensors)


def is_fair_esm(data: Any) -> bool:
    """Whether what a file of torch holds is, or was meant to be, one of fair-esm's."""
    return isinstance(data, Mapping) and ("args" in data or "cfg" in data)


def fair_esm_tensors(
    path: Path, state: Mapping[str, Any], *, clear_mask: bool
) -> dict[str, Tensor]:
    """The tensors of fair-esm's state dict by our names, with the regression beside the file.

    Args:
        path: of the file.
        state: what it holds, tensors of torch by name.
        clear_mask: zero the token row of <mask>, as fair-esm does for ESM-1b and ESM-1v.
    """
    named = without_prefix(state, ("embed_tokens.weight", "layers.0.fc1.weight"))
    _drop_tied(path, named)
    if clear_mask and "embed_tokens.weight" in named:
        _require_rows(path, named["embed_tokens.weight"])
        # A copy: other names may share its memory. Token dropout zeroes this row anyway.
        table = named["embed_tokens.weight"].detach().clone()
        table[ESM1B.mask_idx] = 0
        named["embed_tokens.weight"] = table
    named |= _regression(path)
    return {
        name: as_tensor(path, name, value)
        for name, value in named.items()
        if not _IGNORED.fullmatch(name)
    }


def _parts(
    path: Path, data: Mapping[str, Any], key: str, args: Any, *, dicts: bool = False
) -> tuple[dict[str, Any], dict[str, Any]]:
    """The arguments and the state dict of a file, by name.

    Args:
        path: of the file.
        data: all that it holds.
        key: under which its arguments are.
        args: what is there.
        dicts: whether they may be a dict.
    """
    if not {key, "model"} <= data.keys():
        raise WeightsError(
            f'{path} is no model of fair-esm: expected {{"{key}": ..., "model": ...}}; '
            f"got {_describe(data)}."
        )
    if dicts and isinstance(args, Mapping):
        return {str(name): value for name, value in args.items()}, _state(path, data["model"])
    if not isinstance(args, argparse.Namespace):
        raise WeightsError(
            f"{path}: {key} must be an argparse.Namespace; got {type(args).__name__}."
        )
    return vars(args), _state(path, data["model"])


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


def _drop_tied(path: Path, state: dict[str, Any]) -> None:
    """Take the output projection to be the token table, which it must be."""
    table, output = state.get("embed_tokens.weight"), state.pop("lm_head.weight", None)
    if table is None or output is None:
        return  # `build_model` says what is missing
    expected = _require_rows(path, table)
    # fair-esm clears the row of <mask> in one of them.
    rows = [row for row in range(len(ESM1B)) if row != ESM1B.mask_idx]
    found = as_tensor(path, "lm_head.weight", output).shape
    if found != expected or not table[rows].equal(output[rows]):
        raise WeightsError(
            f"{path}: lm_head.weight and embed_tokens.weight must be the same numbers, since "
            f"the output projection is the token table; they differ."
        )


def _require_rows(path: Path, table: Any) -> tuple[int, ...]:
    """The shape of the token table of ESM-1b's alphabet."""
    shape = as_tensor(path, "embed_tokens.weight", table).shape
    if len(shape) != 2 or shape[0] != len(ESM1B):
        raise WeightsError(
            f"{path}: embed_tokens.weight must have shape ({len(ESM1B)}, C), a row for each "
            f"token; got {shape}."
        )
    return shape


def _config(
    path: Path, args: Mapping[str, Any], tensors: Mapping[str, Tensor], is_esm1: bool
) -> ESM1Config:
    needed = _ARGUMENTS if is_esm1 else (*_ARGUMENTS, "max_positions")
    _require_arguments(path, "args", args, needed)
    layers, width, ffn, heads = (args[name] for name in _ARGUMENTS)
    fields: dict[str, Any] = {
        "num_layers": layers,
        "embed_dim": width,
        "ffn_dim": ffn,
        "num_heads": heads,
        **_heads_of(tensors),
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


def _heads_of(tensors: Iterable[str]) -> dict[str, bool]:
    """The fields of a config that say what heads a model has."""
    names = list(tensors)
    return {
        "contact_head": any(name in names for name in _REGRESSION),
        "language_head": any(name.startswith(("lm_head.", "embed_out")) for name in names),
    }


def _require_arguments(
    path: Path, key: str, args: Mapping[str, Any], needed: Iterable[str]
) -> None:
    if missing := [name for name in needed if name not in args]:
        raise WeightsError(f"{path}: {key} must say {', '.join(missing)}.")


def _without(prefix: str, args: Mapping[str, Any]) -> dict[str, Any]:
    """Arguments by their names less a prefix; one that has it goes before one that has not."""
    return dict(args) | {
        name.removeprefix(prefix): value for name, value in args.items() if name.startswith(prefix)
    }


def _describe(value: Any) -> str:
    if not isinstance(value, Mapping):
        return f"a {type(value).__name__}"
    names = [str(name) for name in value]
    more = f" and {len(names) - 3} more" if len(names) > 3 else ""
    return f"a dict with {', '.join(names[:3]) or 'nothing'}{more}"
