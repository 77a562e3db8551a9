"""Files that torch.save has written, opened without trusting them.

Such a file is a pickle, which can call any function. torch's own restricted unpickler is told that
nothing but tensors, plain containers and `argparse.Namespace` may come out of it.
"""

from __future__ import annotations

import argparse
import pickle
import re
import warnings
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import mlx.core as mx

from ..models.dtypes import READ_AS
from .names import FAMILY
from .opened import Tensor, WeightsError

_GLOBAL = re.compile(r"GLOBAL ([\w.]+)|global ([\w.]+)|class ([\w.]+)")


def load_torch(path: Path) -> Any:
    """What is in a file of torch.save; tensors stay on the disk where its format allows it.

    Raises:
        WeightsError: torch is not installed, the file cannot be read, is no such file or a damaged
            one, or holds anything but tensors, plain containers and `argparse.Namespace`.
    """
    require_torch(f"{path} is a file of torch, which is needed to open it")
    import torch

    try:
        with path.open("rb") as file:
            file.read(1)
        is_zip = zipfile.is_zipfile(path)
        with _only_namespaces(), warnings.catch_warnings():
            warnings.simplefilter("ignore")  # what torch thinks of odd pickles; we refuse them
            if path.suffix == ".safetensors":
                # By that name torch takes it for what its name says, and a stream has none.
                with path.open("rb") as file:
                    return torch.load(file, map_location="cpu", weights_only=True)
            return torch.load(path, map_location="cpu", weights_only=True, mmap=is_zip)
    except FileNotFoundError:
        raise WeightsError(f"There is no weights file {path}.") from None
    except PermissionError as error:
        raise WeightsError(f"{path} cannot be read: {error.strerror}.") from None
    except pickle.UnpicklingError as error:
        raise WeightsError(_refusal(path, str(error))) from None
    except Exception as error:  # a damaged pickle can raise anything
        raise WeightsError(
            f"{path} is no file of torch.save, or a damaged one ({_first_line(error)})."
        ) from None


def require_torch(why: str, instead: str = "") -> None:
    """Refuse where torch is not installed.

    Args:
        why: the beginning of the sentence.
        instead: another sentence, of what needs no torch.
    """
    try:
        import torch  # noqa: F401
    except ImportError:
        how = f"{why}: pip install 'mlx-esm-kernels[convert]'."
        raise WeightsError(f"{how} {instead}".rstrip()) from None


def as_tensor(path: Path, name: str, value: Any) -> Tensor:
    """A torch tensor as one to be read later.

    Raises:
        WeightsError: it is no tensor.
    """
    import torch

    if not isinstance(value, torch.Tensor):
        raise WeightsError(f"{path}: {name} must be a tensor; got {type(value).__name__}.")
    dtype = READ_AS.get(str(value.dtype).removeprefix("torch."))
    if value.layout != torch.strided or value.device.type != "cpu" or dtype is None:
        problem = WeightsError(
            f"{path}: {name} must be a dense tensor of {', '.join(READ_AS)}; "
            f"got {value.dtype}, {value.layout}."
        )

        def refuse() -> mx.array:
            raise problem

        return Tensor(tuple(value.shape), None, refuse)
    # A tensor may be one number repeated: shapes that no file could hold.
    if value.numel() * value.element_size() > value.untyped_storage().nbytes():
        raise WeightsError(f"{path} is damaged: the size of {name} belies its shape.")
    return Tensor(tuple(value.shape), dtype, lambda: _as_mlx(value))


def _as_mlx(value: Any) -> mx.array:
    import torch

    value = value.detach().contiguous()
    if value.dtype == torch.bfloat16:  # which numpy does not have
        return mx.array(value.view(torch.int16).numpy()).view(mx.bfloat16)
    if value.dtype == torch.float64:
        value = value.to(torch.float32)
    return mx.array(value.numpy())


@contextmanager
def _only_namespaces() -> Iterator[None]:
    """Allow `argparse.Namespace` and nothing else; what was allowed before is so again after."""
    from torch.serialization import add_safe_globals, clear_safe_globals, get_safe_globals

    allowed = get_safe_globals()
    clear_safe_globals()
    add_safe_globals([argparse.Namespace])
    try:
        yield
    finally:
        clear_safe_globals()
        add_safe_globals(allowed)


def _refusal(path: Path, message: str) -> str:
    found = _GLOBAL.search(message)
    if not found:
        # Not torch's whole message: it suggests to trust the file.
        reason = re.search(r"WeightsUnpickler error:\s*(.+)", message)
        why = reason[1].rstrip(".") if reason else "it cannot be unpickled"
        return f"{path} is no file of torch.save, or a damaged one ({why})."
    name = next(group for group in found.groups() if group)
    if name.startswith("omegaconf"):
        return f"{path} asks for {name}, as ESMFold's files do; this package has {FAMILY}."
    return (
        f"{path} is refused: it asks for {name}, and weights may hold nothing but tensors and "
        f"argparse.Namespace. Do not open it with anything else."
    )


def _first_line(error: Exception) -> str:
    lines = str(error).splitlines()
    return lines[0].rstrip(".") if lines else type(error).__name__
