"""Linear layers whose weight is int8, for inference: a quarter of the memory, and faster on a CPU.

Symmetric, to the nearest, with a scale of its own for each row of the weight, that is for each
output:

    scale_n = max over k of |W_nk| / 127        q_nk = round(W_nk / scale_n)

What comes into such a layer is rounded in the same way, row by row, inside the op (`int8_linear`).
Embeddings, norms and the heads stay as they are: they are few, and rounding them costs most.
"""

from __future__ import annotations

from typing import Any

import mlx.core as mx
import mlx.nn as nn
from mlx.utils import tree_unflatten

from ..ops import int8_linear
from ..system.errors import UserError
from .low_rank import KEYS, low_rank_layers

NAME = "int8"  # what files and commands call it


class Int8Linear(nn.Module):
    """x (scale weight)^T + bias, without a gradient.

    Args:
        inputs, outputs: I and O; the numbers of a new one are zeros.

    Attributes:
        weight: (O, I) int8.
        weight_scale: (O,) float32, what a unit of each row is worth.
        bias: (O,).
    """

    def __init__(self, inputs: int, outputs: int):
        super().__init__()
        self.weight = mx.zeros((outputs, inputs), mx.int8)
        self.weight_scale = mx.zeros((outputs,))
        self.bias = mx.zeros((outputs,))
        self.freeze()

    @classmethod
    def of(cls, layer: nn.Linear) -> Int8Linear:
        """The layer with its weight rounded; its numbers are finite."""
        outputs, inputs = layer.weight.shape
        made = cls(inputs, outputs)
        wide = layer.weight.astype(mx.float32)
        scale = mx.abs(wide).max(axis=1) / 127
        # A row of zeros, or of numbers so small that their scale is none, is zeros.
        safe = mx.where(scale > 0, scale, 1)[:, None]
        made.weight = mx.clip(mx.round(wide / safe), -127, 127).astype(mx.int8)
        made.weight_scale, made.bias = scale, layer.bias
        mx.eval(made.parameters())
        return made

    def __call__(
        self, x: mx.array, *, activation: str | None = None, residual: mx.array | None = None
    ) -> mx.array:
        """activation(y) + residual; arguments and result are those of `layers.Linear`."""
        return int8_linear(
            x,
            self.weight,
            self.weight_scale,
            self.bias,
            activation=activation,
            residual=residual,
        )


def quantize_int8(model: nn.Module) -> None:
    """Round the weights of the linear layers of a model's transformer layers, in place.

    Raises:
        UserError: the model has int8 weights already, or an adapter beside its layers, or a weight
            has numbers that are NaN or infinite; it is as it was.
    """
    if int8_layers(model):
        raise UserError("the model is quantised to int8 already.")
    if low_rank_layers(model):
        raise UserError("a model with an adapter is not quantised: fuse it first.")
    modules = dict(model.named_modules())
    names = _names(model)
    for name in names:
        if not mx.isfinite(modules[name].weight).all():
            raise UserError(
                f"{name}.weight has numbers that are NaN or infinite, and cannot be quantised."
            )
    _replace(model, {name: Int8Linear.of(modules[name]) for name in names})


def prepare_int8(model: nn.Module) -> None:
    """Put empty int8 layers where `quantize_int8` puts its own, for one who has their numbers."""
    modules = dict(model.named_modules())
    made = {}
    for name in _names(model):
        outputs, inputs = modules[name].weight.shape
        made[name] = Int8Linear(inputs, outputs)
    _replace(model, made)


def int8_layers(model: nn.Module) -> list[str]:
    """The names of the layers of a model whose weights are int8."""
    return sorted(name for name, one in model.named_modules() if isinstance(one, Int8Linear))


def require_unquantised(model: nn.Module, what: str, wanted_for: str) -> None:
    """Refuse a model with int8 weights.

    Args:
        model: the model.
        what: its file, as the beginning of the sentence.
        wanted_for: what cannot be done with it, as in "trained".

    Raises:
        UserError: it has some.
    """
    if int8_layers(model):
        raise UserError(
            f"{what} is quantised to int8, for inference alone, and cannot be {wanted_for}: give "
            f"the unquantised weights, of which it was made."
        )


def stays_as_stored(name: str, model_dtype: mx.Dtype) -> mx.Dtype:
    """The dtype of a parameter of an int8 model whose other parameters have `model_dtype`."""
    if name.endswith(".weight_scale"):
        return mx.float32
    layer, _, last = name.rpartition(".")
    return mx.int8 if last == "weight" and _is_rounded(layer) else model_dtype


def _is_rounded(name: str) -> bool:
    start, _, rest = name.partition(".")
    return start == "layers" and rest.partition(".")[2] in KEYS


def _names(model: nn.Module) -> list[str]:
    return [name for name, _ in sorted(model.named_modules()) if _is_rounded(name)]


def _replace(model: nn.Module, layers: dict[str, Any]) -> None:
    model.update_modules(tree_unflatten(list(layers.items())))
