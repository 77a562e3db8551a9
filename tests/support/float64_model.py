"""ESM-1b and ESM-2 in numpy and float64, one protein at a time: what a model should have said."""

from __future__ import annotations

import numpy as np
import truth
from random_models import parameters

from mlx_esm_kernels.models.config import ESM1Config
from mlx_esm_kernels.models.esm1 import ESM1

_QUERIES_AT_ONCE = 512  # lest long proteins fill the memory


def float64_logits(model: ESM1, tokens: np.ndarray) -> np.ndarray:
    """(L,) tokens of one protein, cls and eos included -> (L, V) logits."""
    p = _parameters(model)
    eps = model.config.layer_norm_eps
    x = _project(p, float64_representation(model, tokens), "lm_head.dense", "gelu")
    return _norm(p, x, "lm_head.layer_norm", eps) @ p["embed_tokens.weight"].T + p["lm_head.bias"]


def float64_representation(model: ESM1, tokens: np.ndarray) -> np.ndarray:
    """(L,) tokens of one protein -> (L, C), the last representation."""
    config, p = model.config, _parameters(model)
    eps = config.layer_norm_eps
    no_positions = np.zeros((len(tokens) + config.padding_idx + 1, config.embed_dim))
    x = truth.positional_embedding(
        tokens[None],
        p["embed_tokens.weight"],
        p.get("embed_positions.weight", no_positions),
        padding_idx=config.padding_idx,
        mask_idx=config.mask_idx,
    )[0]
    if config.emb_layer_norm_before:
        x = _norm(p, x, "emb_layer_norm_before", eps)
    heads = (len(tokens), config.num_heads, config.head_dim)
    for number in range(config.num_layers):
        layer = f"layers.{number}"
        h = _norm(p, x, f"{layer}.self_attn_layer_norm", eps)
        q, k, v = (
            _project(p, h, f"{layer}.self_attn.{one}_proj").reshape(heads).swapaxes(0, 1)
            for one in "qkv"
        )
        if config.rotary_positions:
            q, k = _turned(q, config), _turned(k, config)
        o = _attention(q, k, v).swapaxes(0, 1).reshape(x.shape)
        x = x + _project(p, o, f"{layer}.self_attn.out_proj")
        h = _norm(p, x, f"{layer}.final_layer_norm", eps)
        x = x + _project(p, _project(p, h, f"{layer}.fc1", "gelu"), f"{layer}.fc2")
    return _norm(p, x, "emb_layer_norm_after", eps)


def _turned(x: np.ndarray, config: ESM1Config) -> np.ndarray:
    """(H, L, D) by the angles of fair-esm, whose speeds and products are float32."""
    speeds = np.float32(1) / np.float32(10_000) ** np.arange(0, 1, 2 / config.head_dim, np.float32)
    angles = np.arange(x.shape[1], dtype=np.float32)[:, None] * speeds
    turns = np.exp(1j * angles.astype(np.float64))
    a, b = np.split(x, 2, axis=-1)
    turned = (a + 1j * b) * turns
    return np.concatenate([turned.real, turned.imag], axis=-1)


def _attention(q: np.ndarray, k: np.ndarray, v: np.ndarray) -> np.ndarray:
    """(H, L, D) each; some queries at a time."""
    parts = []
    for first in range(0, q.shape[1], _QUERIES_AT_ONCE):
        some = q[:, first : first + _QUERIES_AT_ONCE] * q.shape[-1] ** -0.5
        scores = some @ k.swapaxes(1, 2)
        powers = np.exp(scores - scores.max(axis=-1, keepdims=True))
        parts.append(powers @ v / powers.sum(axis=-1, keepdims=True))
    return np.concatenate(parts, axis=1)


def _parameters(model: ESM1) -> dict[str, np.ndarray]:
    return {name: np.array(value, dtype=np.float64) for name, value in parameters(model).items()}


def _norm(p: dict[str, np.ndarray], x: np.ndarray, name: str, eps: float) -> np.ndarray:
    return truth.layer_norm(x, p[f"{name}.weight"], p[f"{name}.bias"], eps=eps)


def _project(
    p: dict[str, np.ndarray], x: np.ndarray, name: str, activation: str | None = None
) -> np.ndarray:
    return truth.linear(x, p[f"{name}.weight"], p[f"{name}.bias"], activation=activation)
