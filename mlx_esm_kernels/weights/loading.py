"""Any weights, whatever their format, as a model."""

from __future__ import annotations

import difflib
import os
import warnings
from pathlib import Path

import mlx.core as mx

from ..models.dtypes import DTYPES
from ..models.esm1 import ESM1
from ..models.low_rank import base_parameters, fuse_low_rank, set_base_parameters
from .adapter import load_adapter
from .bare_state import open_bare, read_bare_state
from .fair_esm import is_fair_esm, read_fair_esm
from .first_mlx_esm import read_first_mlx_esm
from .hub import is_hub_name, read_hub
from .hugging_face import read_hugging_face
from .native import is_native, read_native
from .opened import (
    OpenedWeights,
    WeightsError,
    WeightsWarning,
    build_model,
    converted,
    stored_dtype,
)
from .recognising import recognise
from .released import ESM1_NAMES, RELEASED, read_released
from .safetensors_file import open_safetensors
from .torch_file import load_torch

_OF_RUNS = "weights.safetensors"


def load_model(
    path_or_name: str | os.PathLike[str],
    dtype: mx.Dtype | str | None = None,
    adapter: str | os.PathLike[str] | None = None,
) -> ESM1:
    """The model in a weights file, with its parameters in memory and its alphabet.

    Args:
        path_or_name: a .safetensors file of `save_weights`, or the folder of a run; a .pt file of
            fair-esm, whose contact regression is taken from NAME-contact-regression.pt beside it;
            a folder of Hugging Face's transformers, or the weights in it; an .npz file of the
            first mlx-esm; or the name of a released model, such as "esm2_t33_650M_UR50D", or of
            one on the Hugging Face Hub, "facebook/esm2_t33_650M_UR50D" or "owner/name@revision",
            which are downloaded once. The content of a file tells what it is, not its name.
        dtype: float32, float16 or bfloat16, or its name; None: that of the file. An adapter's
            products keep their own.
        adapter: a folder with a low-rank adapter for these weights, of a run of `train` with
            one, of mlx-lm or of PEFT; all but its products is frozen then.

    Returns:
        The model; `model.alphabet` is its alphabet.

    Raises:
        WeightsError: there is no such file, it cannot be used, or the adapter is of other
            weights. The message says why.
        ValueError: dtype is none of these.
    """
    wanted = _wanted(dtype)
    if not isinstance(path_or_name, (str, os.PathLike)):
        raise TypeError(
            f"[load_model] expected a path or the name of a released model; got a "
            f"{type(path_or_name).__name__}."
        )
    opened = open_weights(path_or_name)
    if adapter is None:
        return build_model(opened, wanted)
    model = _adapted(opened, adapter)
    _convert(model, opened, wanted)
    return model


def load_fused(
    path_or_name: str | os.PathLike[str],
    adapter: str | os.PathLike[str],
    dtype: mx.Dtype | str | None = None,
) -> ESM1:
    """The model with an adapter added to its weights, in float32, and then rounded once.

    Arguments and errors are those of `load_model`.
    """
    wanted = _wanted(dtype)
    opened = open_weights(path_or_name)
    model = _adapted(opened, adapter)
    fuse_low_rank(model)
    _convert(model, opened, wanted)
    return model


def _adapted(opened: OpenedWeights, adapter: str | os.PathLike[str]) -> ESM1:
    """The model in float32, which holds every number that is stored: an adapter knows its base by
    them."""
    if opened.int8:
        raise WeightsError(
            f"{opened.path} is quantised to int8, beside which no adapter can stand: give the "
            f"unquantised weights, of which it was made."
        )
    model = build_model(opened, mx.float32)
    load_adapter(Path(adapter), model)
    return model


def lasting_name(path_or_name: str | os.PathLike[str]) -> str:
    """A file or folder of weights by a path that holds anywhere; a model by name by its name."""
    path = Path(path_or_name)
    return str(path.absolute()) if path.exists() else str(path_or_name)


def _convert(model: ESM1, opened: OpenedWeights, dtype: mx.Dtype | None) -> None:
    """Give all but the products a dtype, in place; None: that of the file."""
    parameters = base_parameters(model)
    dtype = dtype or stored_dtype(opened, parameters)
    set_base_parameters(
        model, {name: converted(opened.path, name, p, dtype) for name, p in parameters.items()}
    )
    mx.eval(model.parameters())


def _wanted(dtype: mx.Dtype | str | None) -> mx.Dtype | None:
    wanted = DTYPES.get(dtype) if isinstance(dtype, str) else dtype
    is_known = isinstance(wanted, mx.Dtype) and wanted in DTYPES.values()
    if dtype is not None and not is_known:
        raise ValueError(
            f"[load_model] dtype must be {', '.join(DTYPES)} (of mlx.core, or as text), or None; "
            f"got {dtype!r}."
        )
    return wanted


def open_weights(path_or_name: str | os.PathLike[str]) -> OpenedWeights:
    """Find out the format and open it; arguments and errors are those of `load_model`."""
    path = Path(path_or_name)
    name = str(path_or_name)
    try:
        exists = path.exists()
    except (OSError, ValueError) as error:  # a name too long, a zero byte
        raise WeightsError(f"There is no weights file {name[:60]!r}: {error}.") from None
    if not exists:
        return _open_named(path, name)
    if name in RELEASED:
        warnings.warn(
            f"{name} is a {'folder' if path.is_dir() else 'file'} here, which is used in place of "
            f"the released model of that name.",
            WeightsWarning,
            stacklevel=3,
        )
    if path.is_dir():
        return _open_folder(path)
    kind = recognise(path)
    if kind == "npz":
        return read_first_mlx_esm(path)
    is_ours = kind == "safetensors" and is_native(path)
    if not is_ours and (path.parent / "config.json").exists():
        return read_hugging_face(path.parent, path)
    if kind == "safetensors":
        return read_native(path) if is_ours else open_bare(path, open_safetensors(path)[0])
    data = load_torch(path)
    return read_fair_esm(path, data) if is_fair_esm(data) else read_bare_state(path, data)


def _open_folder(folder: Path) -> OpenedWeights:
    if not (folder / "config.json").exists() and (folder / _OF_RUNS).exists():
        return read_native(folder / _OF_RUNS)
    return read_hugging_face(folder)


def _open_named(path: Path, name: str) -> OpenedWeights:
    """Open the model of a name that is no file here: a released one, or one of the Hub.

    Raises:
        WeightsError: it means none; the message names those that there are, or the one it may be;
            or it cannot be had.
    """
    bare = path.name.removesuffix(".pt").removesuffix(".safetensors")
    # The Hub has all released models but ESM-1, which transformers has not.
    if name in RELEASED or (name == f"facebook/{bare}" and bare in ESM1_NAMES):
        return read_released(bare)
    if is_hub_name(name):
        if not path.parent.exists():
            return read_hub(name)
        raise WeightsError(
            f"There is no weights file {path}. It is not looked for on the Hugging Face Hub, since "
            f"{path.parent} is here."
        )
    if bare in RELEASED:
        raise WeightsError(
            f"There is no weights file {path}. The released model is called {bare} here, and is "
            f"downloaded under that name."
        )
    # A bare word may be meant as a name; a path, or a file's name, is not.
    known = ""
    # Presets are called as the released models, less the data that these were trained on.
    longer = [released for released in RELEASED if released.startswith(f"{bare}_")]
    if close := longer or difflib.get_close_matches(bare, RELEASED, 1, 0.8):
        known = f" Did you mean the released model {' or '.join(close)}?"
    elif path.name == name and not path.suffix:
        known = f" The released models are {', '.join(RELEASED)}."
    raise WeightsError(f"There is no weights file {path}.{known}")
