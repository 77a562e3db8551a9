"""Any weights, whatever their format, as a model."""

from __future__ import annotations

import os
import zipfile
from pathlib import Path

import mlx.core as mx

from ..models.esm1 import ESM1
from .fair_esm import read_fair_esm
from .first_mlx_esm import read_first_mlx_esm
from .hugging_face import read_hugging_face
from .native import read_native
from .opened import OpenedWeights, WeightsError, build_model
from .released import RELEASED, read_released
from .torch_file import LEGACY_MAGIC

_TORCH_SUFFIXES = (".pt", ".pth", ".bin", ".ckpt")


def load_model(path_or_name: str | os.PathLike[str], dtype: mx.Dtype | None = None) -> ESM1:
    """The model in a weights file, with its parameters in memory and its alphabet.

    Args:
        path_or_name: a .safetensors file of `save_weights`; a .pt file of fair-esm, whose contact
            regression is taken from NAME-contact-regression.pt beside it; a folder of Hugging
            Face's transformers; an .npz file of the first mlx-esm; or the name of a released
            model, such as "esm1b_t33_650M_UR50S", which is downloaded once.
        dtype: float32, float16 or bfloat16; None: that of the file.

    Returns:
        The model; `model.alphabet` is its alphabet.

    Raises:
        WeightsError: there is no such file, or it cannot be used. The message says why.
    """
    return build_model(open_weights(path_or_name), dtype)


def open_weights(path_or_name: str | os.PathLike[str]) -> OpenedWeights:
    """Find out the format and open it; arguments and errors are those of `load_model`."""
    path = Path(path_or_name)
    if not path.exists():
        if str(path_or_name) in RELEASED:
            return read_released(str(path_or_name))
        # A bare word may be meant as a name; a path, or a file's name, is not.
        is_word = path.name == str(path_or_name) and not path.suffix
        known = f" The released models are {', '.join(RELEASED)}." if is_word else ""
        raise WeightsError(f"There is no weights file {path}.{known}")
    if path.is_dir():
        return read_hugging_face(path)
    # The content tells, not the name; of a damaged file only the name is left.
    if _is_npz(path):
        return read_first_mlx_esm(path)
    if _is_torch(path):
        return read_fair_esm(path)
    return read_native(path)


def _is_npz(path: Path) -> bool:
    if not _is_zip(path):
        return path.suffix == ".npz"
    with zipfile.ZipFile(path) as records:
        names = records.namelist()
    return path.suffix == ".npz" or any(name.endswith(".npy") for name in names)


def _is_torch(path: Path) -> bool:
    if _is_zip(path) or path.suffix in _TORCH_SUFFIXES:
        return True
    try:
        with path.open("rb") as file:
            return file.read(len(LEGACY_MAGIC)) == LEGACY_MAGIC
    except OSError:
        return False  # `read_native` says why


def _is_zip(path: Path) -> bool:
    try:
        with zipfile.ZipFile(path):
            return True
    except (OSError, ValueError, zipfile.BadZipFile, NotImplementedError):
        return False
