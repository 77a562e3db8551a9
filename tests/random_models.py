"""Small models with opinions: every parameter is away from its neat initial value."""

from __future__ import annotations

from typing import Any

import mlx.core as mx
import numpy as np
from mlx.utils import tree_flatten

from mlx_esm_kernels.model import ESM1, ESM1Config

SIZES: dict[str, Any] = {"num_layers": 2, "embed_dim": 16, "ffn_dim": 32, "num_heads": 2}


def random_model(config: ESM1Config, seed: int = 0, scale: float = 0.3) -> ESM1:
    """A model whose parameters are drawn from N(0, scale), and norms' weights around 1."""
    model, rng = ESM1(config), np.random.default_rng(seed)
    values = [
        (name, mx.array(rng.normal("norm" in name and name.endswith("weight"), scale, p.shape)))
        for name, p in sorted(dict(tree_flatten(model.parameters())).items())
    ]
    model.load_weights([(name, value.astype(mx.float32)) for name, value in values])
    return model


def esm1b(seed: int = 0, **fields: Any) -> ESM1:
    """ESM-1b's architecture; 40 positions, a contact regression."""
    sizes = {**SIZES, "max_positions": 40, "contact_head": True, **fields}
    return random_model(ESM1Config(**sizes), seed)


def esm1(seed: int = 0, **fields: Any) -> ESM1:
    """ESM-1's architecture: no eos."""
    sizes = {**SIZES, "max_positions": 40, "contact_head": True, **fields}
    return random_model(ESM1Config.esm1(**sizes), seed)
