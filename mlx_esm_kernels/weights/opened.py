"""What every loader makes of its file, and a model from that."""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

import mlx.core as mx
from mlx.utils import tree_flatten

from ..data.alphabet import Alphabet
from ..models.config import ESM1Config
from ..models.esm1 import ESM1
from ..models.int8 import prepare_int8, stays_as_stored
from ..system.console import progress
from ..system.errors import UserError
from .names import other_heads


class WeightsError(UserError):
    """Weights that cannot be used; the message names the file and says why."""


class WeightsWarning(UserWarning):
    """Something in a weights file was left aside, or may not be what was meant."""


@dataclass(frozen=True)
class Tensor:
    """A tensor of a file, not read yet.

    Attributes:
        shape: its shape.
        dtype: its dtype once it is read; None: no parameter can have what it is stored as.
        read: reads it from the file; WeightsError where dtype is None.
    """

    shape: tuple[int, ...]
    dtype: mx.Dtype | None
    read: Callable[[], mx.array]


@dataclass(frozen=True)
class OpenedWeights:
    """A weights file, opened.

    Attributes:
        path: where it is.
        config, alphabet: of the model in it.
        tensors: by the names that they have in the file.
        name_of: gives the name in the file of a parameter of `ESM1`.
        int8: whether the linear layers' weights are int8, with scales.
    """

    path: Path
    config: ESM1Config
    alphabet: Alphabet
    tensors: Mapping[str, Tensor]
    name_of: Callable[[str], str] = str
    int8: bool = False


def build_model(opened: OpenedWeights, dtype: mx.Dtype | None = None) -> ESM1:
    """The model of an opened file, with its parameters in memory.

    Tensors are read one by one, so that at no time more than one is there twice.

    Args:
        opened: the opened file; tensors and config are compared here.
        dtype: of the parameters; None: the file's, or float32 where it has several. Of an int8
            file it is that of what is not rounded.

    Raises:
        WeightsError: tensors are missing, too many, or do not have the shapes of the config; or
            a number is NaN or infinite, in the file or in `dtype`.
    """
    path, config, tensors = opened.path, opened.config, opened.tensors
    if disagreement := config.disagreement(opened.alphabet):
        raise WeightsError(f"{path} does not agree with itself: {disagreement}.")
    _check_sizes(opened)
    model = ESM1(config, opened.alphabet, lazy=True)
    if opened.int8:
        prepare_int8(model)
    wanted = {name: p.shape for name, p in dict(tree_flatten(model.parameters())).items()}
    names = {opened.name_of(name): name for name in wanted}
    if missing := sorted(set(names) - set(tensors)):
        raise WeightsError(f"{path} does not fit its config: it lacks {some_of(missing)}.")
    # Buffers, such as positions counted out, are no parameters.
    extra = {name for name in set(tensors) - set(names) if tensors[name].dtype is not None}
    if others := other_heads(extra, {name.split(".", 1)[0] for name in names}):
        warnings.warn(
            f"{path}: {some_of(sorted(others))} left aside: a head that this model does not have.",
            WeightsWarning,
            stacklevel=3,
        )
    if extra := extra - others:
        raise WeightsError(f"{path} does not fit its config: it has also {some_of(sorted(extra))}.")
    for name_in_file, name in names.items():
        _check_shape(opened, name_in_file, wanted[name])
    if dtype is None:
        dtype = stored_dtype(opened, wanted)
    numbers = sum(math.prod(shape) for shape in wanted.values())
    with progress(total=numbers, desc="📥 loading weights", unit="parameter") as bar:
        for key, name in names.items():
            own = stays_as_stored(name, dtype) if opened.int8 else dtype
            array = _read(path, key, tensors[key], own)
            model.load_weights([(name, array)], strict=False)
            bar.update(array.size)
    return model


def stored_dtype(opened: OpenedWeights, parameters: Iterable[str]) -> mx.Dtype:
    """The dtype of the file's parameters, called by their names in `ESM1`; float32 of several."""
    # The contact regression is computed in float32 in any case.
    names = (name for name in parameters if not name.startswith("contact_head"))
    if opened.int8:
        names = (name for name in names if stays_as_stored(name, mx.bool_) == mx.bool_)
    found = {opened.tensors[opened.name_of(name)].dtype for name in names}
    return (found.pop() if len(found) == 1 else None) or mx.float32


def converted(path: Path, name: str, array: mx.array, dtype: mx.Dtype) -> mx.array:
    """A parameter in another dtype.

    Raises:
        WeightsError: that cannot hold it.
    """
    result = array.astype(dtype)
    if not mx.isfinite(result).all():
        raise WeightsError(
            f"{path}: {name} has numbers that {dtype} cannot hold; load it as bfloat16 or float32."
        )
    return result


def _check_sizes(opened: OpenedWeights) -> None:
    """Refuse a config of a much larger model than the file holds, before a model is built."""
    config = opened.config
    if config.num_layers > len(opened.tensors):
        raise WeightsError(
            f"{opened.path} does not fit its config: it has {len(opened.tensors)} tensors "
            f"for {config.num_layers} layers."
        )
    width = config.embed_dim
    shapes = {
        "embed_tokens.weight": (config.vocab_size, width),
        "layers.0.fc1.weight": (config.ffn_dim, width),
    }
    if config.has_position_table:
        shapes["embed_positions.weight"] = (config.num_position_rows, width)
    for name, shape in shapes.items():
        if (name_in_file := opened.name_of(name)) in opened.tensors:
            _check_shape(opened, name_in_file, shape)


def _check_shape(opened: OpenedWeights, name: str, shape: tuple[int, ...]) -> None:
    found = opened.tensors[name].shape
    if found != shape:
        raise WeightsError(
            f"{opened.path} does not fit its config: {name} must have shape {shape}; got {found}."
        )


def _read(path: Path, name: str, tensor: Tensor, dtype: mx.Dtype) -> mx.array:
    try:
        array = tensor.read()
        mx.eval(array)
    except (RuntimeError, OSError) as error:
        raise WeightsError(f"{path} cannot be loaded: {name}: {error}.") from None
    if (array.dtype == mx.int8) != (dtype == mx.int8):
        raise WeightsError(
            f"{path} does not agree with itself: {name} must be "
            f"{'int8' if dtype == mx.int8 else 'floats'}; got {array.dtype}."
        )
    if not mx.isfinite(array).all():
        raise WeightsError(f"{path} is damaged: {name} has numbers that are NaN or infinite.")
    return converted(path, name, array, dtype)


def some_of(names: list[str], shown: int = 3) -> str:
    """The first of some names, and how many more there are."""
    rest = len(names) - shown
    return ", ".join(names[:shown]) + (f" and {rest} more" if rest > 0 else "")
