"""Small models with opinions: every parameter is away from its neat initial value."""

from __future__ import annotations

from typing import Any, TypeVar

import mlx.core as mx
import mlx.nn as nn
import numpy as np
from mlx.utils import tree_flatten

from mlx_esm_kernels.models.esm1 import ESM1, ESM1Config

Model = TypeVar("Model", bound=nn.Module)
SIZES: dict[str, Any] = {"num_layers": 2, "embed_dim": 16, "ffn_dim": 32, "num_heads": 2}


def parameters(model: nn.Module) -> dict[str, mx.array]:
    return dict(tree_flatten(model.parameters()))


def same(model: nn.Module, other: nn.Module) -> bool:
    """Whether two models have the same parameters, bit for bit."""
    ours, theirs = parameters(model), parameters(other)
    return ours.keys() == theirs.keys() and all(
        ours[name].dtype == theirs[name].dtype and mx.array_equal(ours[name], theirs[name])
        for name in ours
    )


def randomised(model: Model, seed: int = 0, scale: float = 0.3) -> Model:
    """The model with parameters drawn from N(0, scale), and norms' weights around 1."""
    rng = np.random.default_rng(seed)
    values = {
        name: mx.array(
            rng.normal("norm" in name and name.endswith("weight"), scale, p.shape), mx.float32
        )
        for name, p in sorted(parameters(model).items())
    }
    model.load_weights(list(values.items()))
    return model


def esm1b(seed: int = 0, **fields: Any) -> ESM1:
    """ESM-1b's architecture; 40 positions, a contact regression."""
    sizes = {**SIZES, "max_positions": 40, "contact_head": True, **fields}
    return randomised(ESM1(ESM1Config(**sizes)), seed)


def esm1(seed: int = 0, **fields: Any) -> ESM1:
    """ESM-1's architecture: no eos."""
    sizes = {**SIZES, "max_positions": 40, "contact_head": True, **fields}
    return randomised(ESM1(ESM1Config.esm1(**sizes)), seed)


def esm2(seed: int = 0, **fields: Any) -> ESM1:
    """ESM-2's architecture: rotary positions, no LayerNorm before."""
    sizes = {"num_layers": 2, "embed_dim": 16, "num_heads": 2, "ffn_dim": 32}
    sizes |= {"max_positions": 40, "contact_head": True, **fields}
    return randomised(ESM1(ESM1Config.esm2(**sizes)), seed)
