"""ESM-1b in numpy and float64, one protein at a time: what a model of ours should have said."""

from __future__ import annotations

import numpy as np
import truth
from random_models import parameters

from mlx_esm_kernels.models.esm1 import ESM1


def float64_logits(model: ESM1, tokens: np.ndarray) -> np.ndarray:
    """(L,) tokens of one protein, cls and eos included -> (L, V) logits."""
    config = model.config
    p = {name: np.array(value, dtype=np.float64) for name, value in parameters(model).items()}

    def norm(x, name):
        weight, bias = p[f"{name}.weight"], p[f"{name}.bias"]
        return truth.layer_norm(x, weight, bias, eps=config.layer_norm_eps)

    def project(x, name, activation=None):
        weight, bias = p[f"{name}.weight"], p[f"{name}.bias"]
        return truth.linear(x, weight, bias, activation=activation)

    x = truth.positional_embedding(
        tokens[None],
        p["embed_tokens.weight"],
        p["embed_positions.weight"],
        padding_idx=config.padding_idx,
        mask_idx=config.mask_idx,
    )[0]
    x = norm(x, "emb_layer_norm_before")
    heads = (len(tokens), config.num_heads, config.head_dim)
    for number in range(config.num_layers):
        layer = f"layers.{number}"
        h = norm(x, f"{layer}.self_attn_layer_norm")
        q, k, v = (
            project(h, f"{layer}.self_attn.{one}_proj").reshape(heads).swapaxes(0, 1)[None]
            for one in "qkv"
        )
        o = truth.masked_attention(q, k, v)[0].swapaxes(0, 1).reshape(x.shape)
        x = x + project(o, f"{layer}.self_attn.out_proj")
        h = project(norm(x, f"{layer}.final_layer_norm"), f"{layer}.fc1", "gelu")
        x = x + project(h, f"{layer}.fc2")
    x = project(norm(x, "emb_layer_norm_after"), "lm_head.dense", "gelu")
    return norm(x, "lm_head.layer_norm") @ p["embed_tokens.weight"].T + p["lm_head.bias"]
