"""The blocks of a model: a transformer layer, its attention, and the head that gives logits."""

from __future__ import annotations

import mlx.core as mx
import mlx.nn as nn

from ..ops import masked_attention, rotary
from .config import ESM1Config
from .contact_head import ContactSum
from .layers import Layer, LayerNorm, Linear, add_norm, project, project_on_table, project_together


class TransformerLayer(nn.Module):
    """x + attention(LN(x)), then x + fc2(gelu(fc1(LN(x))))."""

    def __init__(self, config: ESM1Config):
        super().__init__()
        width, eps = config.embed_dim, config.layer_norm_eps
        self.self_attn = SelfAttention(config)
        self.self_attn_layer_norm = LayerNorm(width, eps)
        self.fc1 = Linear(width, config.ffn_dim)
        self.fc2 = Linear(config.ffn_dim, width)
        self.final_layer_norm = LayerNorm(width, eps)

    def __call__(
        self,
        x: mx.array,
        segment_ids: mx.array,
        contacts: ContactSum | None = None,
        angles: mx.array | None = None,
    ) -> mx.array:
        """x (B L, C), segment_ids (B, L) -> (B L, C).

        `contacts` gets the queries and keys, turned first by `angles` (B, L, D) of `rotary_angles`.
        """
        x, h = add_norm(self.self_attn_layer_norm, x)
        x, h = add_norm(self.final_layer_norm, x, self.self_attn(h, segment_ids, contacts, angles))
        h = project(self.fc1, h, activation="gelu")  # (B L, FFN)
        return project(self.fc2, h, residual=x)


class SelfAttention(nn.Module):
    """Attention of every token to the tokens of its own segment."""

    def __init__(self, config: ESM1Config):
        super().__init__()
        width = config.embed_dim
        self.num_heads = config.num_heads
        self.q_proj = Linear(width, width, gain=0.5**0.5)
        self.k_proj = Linear(width, width, gain=0.5**0.5)
        self.v_proj = Linear(width, width, gain=0.5**0.5)
        self.out_proj = Linear(width, width)
        if config.bias_kv:
            self.bias_k = mx.random.normal((1, 1, width), scale=width**-0.5)
            self.bias_v = mx.random.normal((1, 1, width), scale=width**-0.5)

    def __call__(
        self,
        x: mx.array,
        segment_ids: mx.array,
        contacts: ContactSum | None,
        angles: mx.array | None,
    ) -> mx.array:
        """x (B L, C), segment_ids (B, L) -> (B L, C)."""
        projected = project_together((self.q_proj, self.k_proj, self.v_proj), x)
        shape = (*segment_ids.shape, self.num_heads, x.shape[-1] // self.num_heads)
        q, k, v = (y.reshape(shape).swapaxes(1, 2) for y in projected)  # (B, H, L, D), views
        if angles is not None:
            q, k = rotary(q, angles), rotary(k, angles)
        bias_k, bias_v = self._bias("bias_k"), self._bias("bias_v")
        o = masked_attention(q, k, v, segment_ids=segment_ids, bias_k=bias_k, bias_v=bias_v)
        if contacts is not None:
            contacts.add(q, k, bias_k)
        return project(self.out_proj, o.swapaxes(1, 2).reshape(x.shape))

    def _bias(self, name: str) -> mx.array | None:
        """bias_k or bias_v as (H, D), or None where the model has none."""
        return self[name].reshape(self.num_heads, -1) if name in self else None


class LMHead(nn.Module):
    """dense, GELU, LayerNorm, then the token table as the output projection, plus a bias."""

    def __init__(self, config: ESM1Config):
        super().__init__()
        self.dense = Linear(config.embed_dim, config.embed_dim)
        self.layer_norm = LayerNorm(config.embed_dim, config.layer_norm_eps)
        self.bias = mx.zeros((config.vocab_size,))

    def __call__(self, x: mx.array, embed_tokens: Layer) -> mx.array:
        """x (..., C), the embedding of V tokens -> logits (..., V)."""
        x = project(self.dense, x, activation="gelu")
        return project_on_table(embed_tokens, self.layer_norm(x), self.bias)
