"""Models with low-rank products that matter, and adapters as other programs write them."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import mlx.core as mx
import numpy as np

from mlx_esm_kernels.models.esm1 import ESM1
from mlx_esm_kernels.models.low_rank import (
    LowRank,
    adapter_arrays,
    add_low_rank,
    set_adapter_arrays,
)

MLX_LM_CONFIG = {
    "fine_tune_type": "lora",
    "num_layers": -1,
    "lora_parameters": {"rank": 2, "scale": 3.0, "dropout": 0.0, "keys": ["fc1"]},
    "iters": 100,
    "model": "somewhere/else",
}


def adapted(model: ESM1, low_rank: LowRank, seed: int = 0) -> ESM1:
    """The model, with products whose numbers are away from zero."""
    add_low_rank(model, low_rank)
    rng = np.random.default_rng(seed)
    shapes = {name: array.shape for name, array in adapter_arrays(model).items()}
    arrays = {
        name: mx.array(rng.normal(0, 0.3, shape), mx.float32) for name, shape in shapes.items()
    }
    set_adapter_arrays(model, arrays)
    return model


def write_mlx_lm(folder: Path, config: Mapping[str, Any], arrays: Mapping[str, mx.array]) -> Path:
    """A folder as mlx-lm writes it."""
    return _write(folder, config, arrays, "adapters.safetensors")


def write_peft(folder: Path, config: Mapping[str, Any], arrays: Mapping[str, mx.array]) -> Path:
    """A folder as PEFT writes it."""
    return _write(folder, config, arrays, "adapter_model.safetensors")


def _write(
    folder: Path, config: Mapping[str, Any], arrays: Mapping[str, mx.array], name: str
) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "adapter_config.json").write_text(json.dumps(config))
    mx.save_safetensors(str(folder / name), dict(arrays))
    return folder
