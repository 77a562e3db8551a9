"""Which weights a model has: a short hash, to know the same ones again."""

from __future__ import annotations

import hashlib
import json
from dataclasses import fields, replace

import mlx.core as mx
import numpy as np
from mlx.utils import tree_flatten

from .config import ESM1Config
from .esm1 import ESM1
from .low_rank import base_parameters, low_rank_layers


def fingerprint(model: ESM1) -> str:
    """A hash of the model's config, and of some hundred numbers of each of its parameters; of the
    scale, too, of each product beside a layer."""
    scales = {
        f"{name}.scale": mx.array(layer.scale) for name, layer in low_rank_layers(model).items()
    }
    return _fingerprint(model.config, {**dict(tree_flatten(model.parameters())), **scales})


def fingerprint_of_base(model: ESM1) -> str:
    """That of the model without the low-rank products beside its layers, and without its contact
    regression, which some files of the same weights have and others have not."""
    some = {k: x for k, x in base_parameters(model).items() if not k.startswith("contact_head.")}
    return _fingerprint(replace(model.config, contact_head=False), some)


def _fingerprint(config: ESM1Config, parameters: dict[str, mx.array]) -> str:
    # What is not said is the default: a field that comes later leaves older hashes as they are.
    defaults = {field.name: field.default for field in fields(config)}
    defaults["objective"] = config.objective  # which changes no result
    said = {k: v for k, v in config.to_dict().items() if v != defaults[k]}
    digest = hashlib.blake2b(json.dumps(said, sort_keys=True).encode(), digest_size=16)
    for name, parameter in sorted(parameters.items()):
        flat = parameter.reshape(-1)
        some = flat[:: max(1, flat.size // 256)].astype(mx.float32)
        digest.update(name.encode() + np.array(some).tobytes())
    return digest.hexdigest()
