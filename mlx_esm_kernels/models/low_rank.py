"""Low-rank adapters: small products beside frozen linear layers, which alone are trained.

Hu et al. 2021, "LoRA: Low-Rank Adaptation of Large Language Models", https://arxiv.org/abs/2106.09685,
equation 3: W x becomes W x + (alpha / r) B A x, with A random and B = 0, so that an adapted model
begins as what it was. Names, shapes, initial values and the one factor `scale` are those of
mlx-lm's LoRALinear, whose A and B stand on the right of a row x:

    y = x W^T + b + scale * (x A) B        A (I, r) uniform in +-1 / sqrt(I), B (r, O) zeros
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import mlx.core as mx
import mlx.nn as nn
from mlx.utils import tree_flatten, tree_unflatten

from ..ops import linear
from ..system.errors import UserError

SCALE = 20.0  # mlx-lm's
# The linear layers of a transformer layer: all of them, as in mlx-lm where no keys are given.
KEYS = (
    "self_attn.q_proj",
    "self_attn.k_proj",
    "self_attn.v_proj",
    "self_attn.out_proj",
    "fc1",
    "fc2",
)
# Of the model itself, outside its layers.
KEYS_OF_MODEL = ("lm_head.dense",)
ARRAYS = ("lora_a", "lora_b")


@dataclass(frozen=True)
class LowRank:
    """Which layers of a model have a low-rank product beside them, and of what kind.

    Attributes:
        rank: r, columns of A and rows of B.
        scale: factor of the product; alpha / r of the paper.
        dropout: share of the numbers that go into A which is left out of a step of training.
        keys: of KEYS, the layers' names within a transformer layer, and of KEYS_OF_MODEL.
        num_layers: how many of the last transformer layers; None: all.

    Raises:
        UserError: a value means nothing, or a name is none of these.
    """

    rank: int
    scale: float = SCALE
    dropout: float = 0.0
    keys: tuple[str, ...] = KEYS
    num_layers: int | None = None

    def __post_init__(self) -> None:
        object.__setattr__(self, "keys", tuple(dict.fromkeys(self.keys)))  # also of json's lists
        if not _is_int(self.rank) or self.rank < 1:
            raise UserError(f"the rank of an adapter must be 1 or more; got {self.rank!r}.")
        if not _is_number(self.scale) or not math.isfinite(self.scale) or self.scale == 0:
            raise UserError(
                f"the scale of an adapter must be a finite number other than 0; got {self.scale!r}."
            )
        if not _is_number(self.dropout) or not 0 <= self.dropout < 1:
            raise UserError(
                f"the dropout of an adapter must be at least 0 and below 1; got {self.dropout!r}."
            )
        if self.num_layers is not None and (not _is_int(self.num_layers) or self.num_layers < 1):
            raise UserError(
                f"an adapter must have 1 layer or more; got {self.num_layers!r} layers."
            )
        known = (*KEYS, *KEYS_OF_MODEL)
        if odd := [key for key in self.keys if key not in known]:
            raise UserError(
                f"an adapter stands beside {', '.join(known)}; got {', '.join(map(str, odd))}."
            )
        if not self.keys:
            raise UserError(f"an adapter needs layers to stand beside: {', '.join(known)}.")


class LowRankLinear(nn.Module):
    """A linear layer (O, I) and a low-rank product beside it.

    Args:
        layer: the layer, an `nn.Linear` of any kind; it is kept as it is, and frozen if it was.
        rank, scale, dropout: as in `LowRank`.

    Attributes:
        linear: the layer.
        lora_a, lora_b: A (I, r) and B (r, O), float32 in a new one.
    """

    def __init__(self, layer: nn.Linear, rank: int, scale: float = SCALE, dropout: float = 0.0):
        super().__init__()
        outputs, inputs = layer.weight.shape
        bound = inputs**-0.5
        self.linear = layer
        self.scale, self.dropout = scale, dropout
        self.lora_a = mx.random.uniform(-bound, bound, (inputs, rank))
        self.lora_b = mx.zeros((rank, outputs))
        self._key: mx.array | None = None

    def __call__(
        self, x: mx.array, *, activation: str | None = None, residual: mx.array | None = None
    ) -> mx.array:
        """activation(y) + residual; arguments and result are those of `layers.Linear`."""
        base = self.linear
        if activation is None and residual is None:
            # Called, not computed from its weight: it may be of a class that has more to it.
            return self.add_product(base(x), x)
        if activation is None:
            y = linear(x, base.weight, base.get("bias"), residual=residual)
            return self.add_product(y, x)
        y = gelu(self.add_product(linear(x, base.weight, base.get("bias")), x))
        return y if residual is None else y + residual

    def add_product(self, y: mx.array, x: mx.array) -> mx.array:
        """y (..., O) + scale * (x A) B of x (..., I), in the dtype of x."""
        if self.dropout and self._key is not None:
            kept = mx.random.bernoulli(1 - self.dropout, x.shape, key=self._key)
            x = mx.where(kept, x / (1 - self.dropout), mx.zeros_like(x))
        z = linear(x, self.lora_a.T.astype(x.dtype))
        return linear(z, (self.scale * self.lora_b).T.astype(x.dtype), residual=y)

    def fused(self) -> nn.Linear:
        """A layer of the same kind as `linear` whose weight is W + scale (A B)^T, summed in float32
        and rounded to the dtype of W."""
        base = self.linear
        a, b = self.lora_a.astype(mx.float32), self.lora_b.astype(mx.float32)
        total = base.weight.astype(mx.float32) + self.scale * (a @ b).T
        outputs, inputs = base.weight.shape
        made = type(base)(inputs, outputs)
        made.weight = total.astype(base.weight.dtype)
        if "bias" in base:
            made.bias = base.bias
        else:
            made.pop("bias", None)
        return made


def add_low_rank(model: nn.Module, low_rank: LowRank) -> None:
    """Put products beside the layers of a model and freeze all else, in place.

    A is drawn from MLX's global stream of random numbers.

    Raises:
        UserError: the model has fewer layers than that, or no such layer; it is as it was.
        ValueError: there is a product beside one of them already.
    """
    layers = layers_beside(model, low_rank)
    model.freeze()
    _replace(
        model,
        {
            name: LowRankLinear(layer, low_rank.rank, low_rank.scale, low_rank.dropout)
            for name, layer in layers.items()
        },
    )
    mx.eval(model.trainable_parameters())


def layers_beside(model: nn.Module, low_rank: LowRank) -> dict[str, nn.Linear]:
    """The layers of a model, by name, beside which the products of `low_rank` stand.

    Raises:
        UserError, ValueError: as `add_low_rank`.
    """
    total = len(model.layers)
    count = total if low_rank.num_layers is None else low_rank.num_layers
    if count > total:
        raise UserError(f"the model has {total} layers, too few for an adapter of {count}.")
    modules = dict(model.named_modules())
    names = [
        f"layers.{number}.{key}"
        for number in range(total - count, total)
        for key in low_rank.keys
        if key in KEYS
    ]
    names += [key for key in low_rank.keys if key in KEYS_OF_MODEL]
    for name in names:
        if name not in modules:
            raise UserError(f"the model has no {name} for an adapter to stand beside.")
        if not isinstance(modules[name], nn.Linear):
            raise ValueError(f"[low_rank] {name} must be a linear layer; got {modules[name]}.")
    return {name: modules[name] for name in names}


def low_rank_layers(model: nn.Module) -> dict[str, LowRankLinear]:
    """The layers of a model that have a product beside them, by name."""
    return {
        name: module
        for name, module in sorted(model.named_modules())
        if isinstance(module, LowRankLinear)
    }


def adapter_arrays(model: nn.Module) -> dict[str, mx.array]:
    """A and B of every product: `layers.5.self_attn.q_proj.lora_a`."""
    return {
        f"{name}.{key}": layer[key]
        for name, layer in low_rank_layers(model).items()
        for key in ARRAYS
    }


def set_adapter_arrays(model: nn.Module, arrays: Mapping[str, mx.array]) -> None:
    """Put in others, under the names of `adapter_arrays`."""
    model.load_weights(list(arrays.items()), strict=False)


def fuse_low_rank(model: nn.Module) -> None:
    """Add the products to the weights beside which they stand, in place; nothing is frozen then."""
    _replace(model, {name: layer.fused() for name, layer in low_rank_layers(model).items()})
    model.unfreeze()
    mx.eval(model.parameters())


def draw_dropout(model: nn.Module, moment: Iterable[int] | None) -> None:
    """Choose what dropout leaves out until the next call; None: nothing, as in a new model.

    Args:
        model: the model.
        moment: numbers that say when this is, such as seed and step: the same ones leave out the
            same.
    """
    layers = [layer for layer in low_rank_layers(model).values() if layer.dropout]
    if moment is None:
        for layer in layers:
            layer._key = None
        return
    key = mx.random.key(0)
    for number in moment:
        key = mx.random.split(key ^ mx.array([number >> 32, number & 0xFFFFFFFF], mx.uint32))[0]
    for layer, own in zip(layers, mx.random.split(key, max(1, len(layers))), strict=False):
        layer._key = own


def base_parameters(model: nn.Module) -> dict[str, mx.array]:
    """The parameters of a model without its products, under the names that they have without."""
    parameters = dict(tree_flatten(model.parameters()))
    return {ours: parameters[name] for ours, name in _names_with_products(model).items()}


def set_base_parameters(model: nn.Module, parameters: Mapping[str, mx.array]) -> None:
    """Put in others, under the names of `base_parameters`; the products stay as they are."""
    names = _names_with_products(model)
    model.load_weights([(names[name], array) for name, array in parameters.items()], strict=False)


def _names_with_products(model: nn.Module) -> dict[str, str]:
    """What each parameter of a model is called now, by its name in one without products."""
    inner = {f"{name}.linear.": f"{name}." for name in low_rank_layers(model)}
    products = adapter_arrays(model).keys()
    found = {}
    for name in dict(tree_flatten(model.parameters())):
        if name not in products:
            start, dot, last = name.rpartition(".")
            found[inner.get(start + dot, start + dot) + last] = name
    return found


def gelu(x: mx.array) -> mx.array:
    """The exact GELU, computed in float32 as the op does it.

    mlx.nn's is compiled, for which MLX needs a C++ compiler on a CPU.
    """
    wide = x.astype(mx.float32)
    return (wide * (0.5 * (1 + mx.erf(wide * 0.5**0.5)))).astype(x.dtype)


def _replace(model: nn.Module, layers: Mapping[str, Any]) -> None:
    if layers:
        model.update_modules(tree_unflatten(list(layers.items())))


def _is_int(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)
