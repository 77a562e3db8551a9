"""The .safetensors format: a header that is checked before anything is read.

8 bytes of length, json, then the tensors to the end of the file
(https://github.com/huggingface/safetensors#format).
"""

from __future__ import annotations

import json
import math
import os
import struct
from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import mlx.core as mx
from tqdm.utils import CallbackIOWrapper

from ..models.dtypes import SAFETENSORS
from ..system.console import progress
from ..system.whole_file import sync
from .opened import Tensor, WeightsError


@dataclass(frozen=True)
class _Entry:
    dtype: str
    shape: tuple[int, ...]
    begin: int  # bytes, from the end of the header
    end: int


def open_safetensors(path: Path, *, int8: bool = False) -> tuple[dict[str, Tensor], dict[str, str]]:
    """The tensors of a file, to be read when they are needed, and its metadata.

    Args:
        path: the file.
        int8: whether a parameter may be int8; else such a tensor can be none.

    Raises:
        WeightsError: there is no such file, it is another kind of file, cut short or damaged.
    """
    known = SAFETENSORS | ({"I8": mx.int8} if int8 else {})
    entries, metadata = _read_header(path, known)
    arrays = _lazy_arrays(path)

    def read(name: str) -> mx.array:
        if entries[name].dtype not in known:
            raise WeightsError(
                f"{path}: {name} must be one of {', '.join(known)}; got {entries[name].dtype}."
            )
        # Not kept here: once it is evaluated, that would be the whole file. Needed again (tied
        # weights are), it is read again.
        return arrays.pop(name) if name in arrays else _lazy_arrays(path)[name]

    tensors = {
        name: Tensor(entry.shape, known.get(entry.dtype), partial(read, name))
        for name, entry in entries.items()
    }
    return tensors, metadata


def write_safetensors(
    path: Path, arrays: Mapping[str, mx.array], metadata: Mapping[str, str], *, name: str
) -> None:
    """Write arrays to a file, under a bar that calls it `name`.

    Raises:
        OSError: it cannot be written.
    """
    total = sum(array.nbytes for array in arrays.values())
    with progress(total=total, desc=f"💾 writing {name}", unit="B") as bar:
        # An open file, whose errors say what is the matter, and since mx.save_safetensors puts a
        # suffix behind a path without one.
        with path.open("wb") as file:
            counted: Any = CallbackIOWrapper(bar.update, file, "write")
            mx.save_safetensors(counted, dict(arrays), metadata=dict(metadata))
        sync(path)  # here, under the bar: the disk may need as long again


def _lazy_arrays(path: Path) -> dict[str, mx.array]:
    """The arrays of a file, of which nothing is read until they are evaluated."""
    try:
        arrays = mx.load(str(path), format="safetensors")
    except RuntimeError as error:
        raise WeightsError(f"{path} cannot be loaded: {error}.") from None
    assert isinstance(arrays, dict)
    return arrays


def _read_header(
    path: Path, known: Mapping[str, mx.Dtype]
) -> tuple[dict[str, _Entry], dict[str, str]]:
    try:
        with path.open("rb") as file:
            size = os.fstat(file.fileno()).st_size
            (length,) = struct.unpack("<Q", file.read(8).ljust(8, b"\xff"))
            # A first check on the length, lest a file of another kind has us read exabytes.
            text = file.read(length) if length <= size - 8 else b""
    except FileNotFoundError:
        raise WeightsError(f"There is no weights file {path}.") from None
    except OSError as error:
        raise WeightsError(f"{path} cannot be read: {error.strerror}.") from None
    try:
        entries, metadata = _parse_header(text)
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError):
        raise WeightsError(f"{path} is no safetensors file, or a damaged one.") from None
    wanted = 8 + length + max((entry.end for entry in entries.values()), default=0)
    if size < wanted:
        raise WeightsError(f"{path} is cut short: it has {size} bytes of {wanted}.")
    for name, entry in entries.items():
        if (
            entry.dtype in known
            and entry.end - entry.begin != math.prod(entry.shape) * known[entry.dtype].size
        ):
            raise WeightsError(f"{path} is damaged: the size of {name} belies its shape.")
    return entries, metadata


def _parse_header(text: bytes) -> tuple[dict[str, _Entry], dict[str, str]]:
    """The json of a header; any of several exceptions where it is something else."""
    described = dict(json.loads(text).items())
    metadata = {
        str(key): str(text) for key, text in (described.pop("__metadata__", None) or {}).items()
    }
    entries = {}
    for name, entry in described.items():
        begin, end = entry["data_offsets"]
        numbers = (*entry["shape"], begin, end - begin)
        if any(type(number) is not int or number < 0 for number in numbers):
            raise ValueError(name)
        entries[name] = _Entry(str(entry["dtype"]), tuple(entry["shape"]), begin, end)
    return entries, metadata
