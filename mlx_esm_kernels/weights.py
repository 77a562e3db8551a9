"""Weights as one .safetensors file that carries the model's config and alphabet.

The file holds the parameters under fair-esm's names; its metadata holds `format_version`,
`config` and `alphabet` (both json), and whatever the writer added.
"""

from __future__ import annotations

import json
import math
import os
import struct
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import mlx.core as mx
from mlx.utils import tree_flatten

from .alphabet import ESM1B, Alphabet
from .model import ESM1, ESM1Config

FORMAT_VERSION = 1
_RESERVED = ("format_version", "config", "alphabet")
_DTYPE_BYTES = {"F32": 4, "F16": 2, "BF16": 2}


class WeightsError(ValueError):
    """A weights file that cannot be used; the message names the file and says why."""


@dataclass(frozen=True)
class _Tensor:
    dtype: str
    shape: tuple[int, ...]
    begin: int  # bytes, from the end of the header
    end: int


@dataclass(frozen=True)
class _Header:
    metadata: dict[str, str]
    tensors: dict[str, _Tensor]


def save_weights(
    path: str | os.PathLike[str],
    model: ESM1,
    alphabet: Alphabet = ESM1B,
    metadata: Mapping[str, str] | None = None,
) -> None:
    """Write the model, its config and its alphabet to `path`, all or nothing.

    The new file is complete and on the disk before it takes the place of an old one, so `path`
    never holds half a file, whatever happens.

    Args:
        path: where to write; its folder must exist. A symbolic link is followed.
        model: the model.
        alphabet: what its token ids mean; as many tokens as the model's vocabulary.
        metadata: further strings to keep in the file.

    Raises:
        ValueError: metadata uses a reserved name, or the alphabet does not fit the model.
        OSError: the file cannot be written; what was at `path` is untouched.
    """
    extra = dict(metadata or {})
    if taken := sorted(set(extra) & set(_RESERVED)):
        raise ValueError(f"[save_weights] metadata may not set {', '.join(taken)}.")
    if disagreement := _disagreement(model.config, alphabet):
        raise ValueError(f"[save_weights] the alphabet does not fit the model: {disagreement}.")
    header = {
        "format_version": str(FORMAT_VERSION),
        "config": json.dumps(model.config.to_dict()),
        "alphabet": json.dumps(alphabet.to_dict()),
    }
    target = Path(os.path.realpath(path))
    # A folder of its own beside the target: the same file system, and no clash of names.
    with tempfile.TemporaryDirectory(prefix=f".{target.name}.", dir=target.parent) as folder:
        written = Path(folder) / "weights.safetensors"
        mx.save_safetensors(str(written), _parameters(model), metadata={**extra, **header})
        _sync(written)
        os.replace(written, target)
    _sync(target.parent)


def load_model(path: str | os.PathLike[str]) -> ESM1:
    """The model in a file of `save_weights`, with its parameters in memory.

    Raises:
        WeightsError: no such file, no safetensors, cut short, no config or alphabet in it, or
            tensors that do not fit the config. The message says which.
    """
    path = Path(path)
    header = _read_header(path)
    config = _config(path, header)
    alphabet = _alphabet(path, header)
    if disagreement := _disagreement(config, alphabet):
        raise WeightsError(f"{path} does not agree with itself: {disagreement}.")
    # Every layer has tensors: a config that asks for more layers is not worth building.
    if config.num_layers > len(header.tensors):
        raise WeightsError(
            f"{path} does not fit its config: it has {len(header.tensors)} tensors "
            f"for {config.num_layers} layers."
        )
    model = ESM1(config)
    _check_tensors(path, header, _parameters(model))
    try:
        arrays = mx.load(str(path), format="safetensors")
        assert isinstance(arrays, dict)
        model.load_weights(list(arrays.items()))
        mx.eval(model.parameters())
    except RuntimeError as error:
        raise WeightsError(f"{path} cannot be loaded: {error}.") from None
    return model


def load_alphabet(path: str | os.PathLike[str]) -> Alphabet:
    """The alphabet in a file of `save_weights`; raises WeightsError as `load_model` does."""
    path = Path(path)
    return _alphabet(path, _read_header(path))


def _parameters(model: ESM1) -> dict[str, mx.array]:
    return dict(tree_flatten(model.parameters()))


def _disagreement(config: ESM1Config, alphabet: Alphabet) -> str | None:
    """The first thing in which a config and an alphabet differ, in words."""
    if config.vocab_size != len(alphabet):
        return f"vocab_size is {config.vocab_size}, the alphabet has {len(alphabet)} tokens"
    for name in ("padding_idx", "mask_idx", "cls_idx", "eos_idx"):
        wanted, got = getattr(config, name), getattr(alphabet, name)
        if wanted != got:
            return f"{name} is {wanted} in the config and {got} in the alphabet"
    return None


def _sync(path: Path) -> None:
    """Wait until a file, or a folder's list of names, is on the disk itself."""
    if path.is_dir() and os.name == "nt":
        return  # Windows cannot open a folder.
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _read_header(path: Path) -> _Header:
    """Read and check the header: 8 bytes of length, json, then the tensors to the end of file.

    Format: https://github.com/huggingface/safetensors#format
    """
    try:
        with path.open("rb") as file:
            size = os.fstat(file.fileno()).st_size
            (length,) = struct.unpack("<Q", file.read(8).ljust(8, b"\xff"))
            # A first check on the length, lest a file of another kind asks for exabytes.
            text = file.read(length) if length <= size - 8 else b""
    except FileNotFoundError:
        raise WeightsError(f"There is no weights file {path}.") from None
    except OSError as error:
        raise WeightsError(f"{path} cannot be read: {error.strerror}.") from None
    try:
        header = _parse_header(text)
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError):
        raise WeightsError(f"{path} is no safetensors file, or a damaged one.") from None
    wanted = 8 + length + max((tensor.end for tensor in header.tensors.values()), default=0)
    if size < wanted:
        raise WeightsError(f"{path} is cut short: it has {size} bytes of {wanted}.")
    for name, tensor in header.tensors.items():
        if tensor.dtype not in _DTYPE_BYTES:
            raise WeightsError(
                f"{path}: {name} must be one of {', '.join(_DTYPE_BYTES)}; got {tensor.dtype}."
            )
        if tensor.end - tensor.begin != math.prod(tensor.shape) * _DTYPE_BYTES[tensor.dtype]:
            raise WeightsError(f"{path} is damaged: the size of {name} belies its shape.")
    return header


def _parse_header(text: bytes) -> _Header:
    """The json of a safetensors header; any of several exceptions where it is something else."""
    entries = dict(json.loads(text).items())
    metadata = {str(key): str(text) for key, text in entries.pop("__metadata__", {}).items()}
    tensors = {}
    for name, entry in entries.items():
        begin, end = entry["data_offsets"]
        numbers = (*entry["shape"], begin, end - begin)
        if any(type(number) is not int or number < 0 for number in numbers):
            raise ValueError(name)
        tensors[name] = _Tensor(str(entry["dtype"]), tuple(entry["shape"]), begin, end)
    return _Header(metadata, tensors)


def _config(path: Path, header: _Header) -> ESM1Config:
    version = header.metadata.get("format_version")
    if version is None or "config" not in header.metadata:
        raise WeightsError(
            f"{path} is a safetensors file, but has no config in it: "
            f"it was not written by mlx-esm-kernels."
        )
    if version != str(FORMAT_VERSION):
        raise WeightsError(
            f"{path} has format version {version}, this release reads {FORMAT_VERSION}: "
            f"install a newer mlx-esm-kernels."
        )
    try:
        return ESM1Config.from_dict(json.loads(header.metadata["config"]))
    except (ValueError, TypeError) as error:
        raise WeightsError(f"{path} has a config that cannot be used: {error}") from None


def _alphabet(path: Path, header: _Header) -> Alphabet:
    if "alphabet" not in header.metadata:
        raise WeightsError(
            f"{path} is a safetensors file, but has no alphabet in it: "
            f"it was not written by mlx-esm-kernels."
        )
    try:
        return Alphabet.from_dict(json.loads(header.metadata["alphabet"]))
    except (ValueError, TypeError, KeyError) as error:
        raise WeightsError(f"{path} has an alphabet that cannot be used: {error}") from None


def _check_tensors(path: Path, header: _Header, wanted: Mapping[str, mx.array]) -> None:
    """Compare the names and shapes of the file with those of the model."""
    if missing := sorted(set(wanted) - set(header.tensors)):
        raise WeightsError(f"{path} does not fit its config: it lacks {_some(missing)}.")
    if extra := sorted(set(header.tensors) - set(wanted)):
        raise WeightsError(f"{path} does not fit its config: it has also {_some(extra)}.")
    for name, parameter in wanted.items():
        shape = header.tensors[name].shape
        if shape != parameter.shape:
            raise WeightsError(
                f"{path} does not fit its config: {name} must have shape {parameter.shape}; "
                f"got {shape}."
            )


def _some(names: list[str], shown: int = 3) -> str:
    rest = len(names) - shown
    return ", ".join(names[:shown]) + (f" and {rest} more" if rest > 0 else "")
