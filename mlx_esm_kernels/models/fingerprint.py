"""Which weights a model has: a short hash, to know the same ones again."""

from __future__ import annotations

import hashlib
import json

import mlx.core as mx
import numpy as np
from mlx.utils import tree_flatten

from .esm1 import ESM1
from .low_rank import base_parameters, low_rank_layers


def fingerprint(model: ESM1) -> str:
    """A hash of the model's config, and of some hundred numbers of each of its parameters; of the
    scale, too, of each product beside a layer."""
    scales = {
        f"{name}.scale": mx.array(layer.scale) for name, layer in low_rank_layers(model).items()
    }
    return _fingerprint(model, {**dict(tree_flatten(model.parameters())), **scales})


def fingerprint_of_base(model: ESM1) -> str:
    """That of the model without the low-rank products beside its layers."""
    return _fingerprint(model, base_parameters(model))


def _fingerprint(model: ESM1, parameters: dict[str, mx.array]) -> str:
    digest = hashlib.blake2b(json.dumps(model.config.to_dict()).encode(), digest_size=16)
    for name, parameter in sorted(parameters.items()):
        flat = parameter.reshape(-1)
        some = flat[:: max(1, flat.size // 256)].astype(mx.float32)
        digest.update(name.encode() + np.array(some).tobytes())
    return digest.hexdigest()
