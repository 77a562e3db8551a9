"""The ESM-1 model with learned positions (ESM-1b, ESM-1v), on this package's ops.

Parameters bear fair-esm's names. `reference.ESM1Reference` is the same model in plain MLX.
"""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

import mlx.core as mx
import mlx.nn as nn

from .config import PRESETS, ESM1Config
from .ops import (
    add_layer_norm,
    layer_norm,
    linear,
    linears,
    masked_attention,
    positional_embedding,
)

__all__ = ["ESM1", "PRESETS", "ESM1Config"]


class ESM1(nn.Module):
    """ESM-1b's architecture: pre-LN transformer, learned positions, token dropout, tied LM head.

    A new model is initialised as in BERT and fairseq: embeddings N(0, 0.02), Xavier-uniform
    projections (those of q, k and v with gain 1 / sqrt 2), zero biases.
    """

    def __init__(self, config: ESM1Config):
        super().__init__()
        self.config = config
        width, eps = config.embed_dim, config.layer_norm_eps
        self.embed_tokens = _embedding(config.vocab_size, width, config.padding_idx)
        self.embed_positions = _embedding(config.num_position_rows, width, config.padding_idx)
        if config.emb_layer_norm_before:
            self.emb_layer_norm_before = nn.LayerNorm(width, eps)
        self.layers = [TransformerLayer(config) for _ in range(config.num_layers)]
        self.emb_layer_norm_after = nn.LayerNorm(width, eps)
        self.lm_head = LMHead(config)

    def __call__(
        self,
        tokens: mx.array,
        segment_ids: mx.array | None = None,
        *,
        repr_layers: Collection[int] = (),
    ) -> dict[str, Any]:
        """Logits, and the representations that are asked for.

        Args:
            tokens: (B, L) integer; cls, residues, eos of each protein.
            segment_ids: (B, L) integer, 0 = padding, for several proteins packed into one row;
                None: each row is one protein, padded with config.padding_idx.
            repr_layers: which representations to return. 0 is the embedding, i the output of
                layer i, num_layers the last one, after emb_layer_norm_after.

        Returns:
            {"logits": (B, L, V), "representations": {layer: (B, L, C)}}, in the dtype of the
            parameters. Rows of padding hold nothing of meaning.

        Raises:
            ValueError: bad shapes, dtypes, ids or layers, or a protein longer than
                config.max_positions tokens.
        """
        for layer in repr_layers:
            if not 0 <= layer <= self.config.num_layers:
                raise ValueError(
                    f"[ESM1] repr_layers must be from 0 to {self.config.num_layers}; got {layer}."
                )
        x, representations = self._run(tokens, segment_ids, frozenset(repr_layers))
        return {"logits": self.head(x), "representations": representations}

    def encode(self, tokens: mx.array, segment_ids: mx.array | None = None) -> mx.array:
        """tokens (B, L) -> (B, L, C) after emb_layer_norm_after; arguments as in the call."""
        return self._run(tokens, segment_ids, frozenset())[0]

    def head(self, x: mx.array) -> mx.array:
        """x (..., C) of `encode`, or some of its rows -> logits (..., V)."""
        return self.lm_head(x, self.embed_tokens.weight)

    def _run(
        self, tokens: mx.array, segment_ids: mx.array | None, repr_layers: frozenset[int]
    ) -> tuple[mx.array, dict[int, mx.array]]:
        config = self.config
        segment_ids = self._segments(tokens, segment_ids)
        x = positional_embedding(
            tokens,
            self.embed_tokens.weight,
            self.embed_positions.weight,
            padding_idx=config.padding_idx,
            mask_idx=config.mask_idx if config.token_dropout else None,
            segment_ids=segment_ids,
        )
        if config.emb_layer_norm_before:
            # fair-esm clears padding once more here. Nothing sees padding, so that changes nothing.
            x = _norm(self.emb_layer_norm_before, x)

        representations = {0: x} if 0 in repr_layers else {}
        for number, layer in enumerate(self.layers, start=1):
            x = layer(x, segment_ids)
            if number == config.num_layers:
                x = _norm(self.emb_layer_norm_after, x)
            if number in repr_layers:
                representations[number] = x
        return x, representations

    def _segments(self, tokens: mx.array, segment_ids: mx.array | None) -> mx.array:
        """The segment ids (B, L) with 0 at every padding token."""
        real = tokens != self.config.padding_idx
        if segment_ids is None:
            return real.astype(mx.int32)
        if segment_ids.shape != tokens.shape:
            raise ValueError(
                f"[ESM1] segment_ids must have the shape of tokens (B, L) = {tokens.shape}; "
                f"got {segment_ids.shape}."
            )
        return mx.where(real, segment_ids, 0)


class TransformerLayer(nn.Module):
    """x + attention(LN(x)), then x + fc2(gelu(fc1(LN(x))))."""

    def __init__(self, config: ESM1Config):
        super().__init__()
        width, eps = config.embed_dim, config.layer_norm_eps
        self.self_attn = SelfAttention(config)
        self.self_attn_layer_norm = nn.LayerNorm(width, eps)
        self.fc1 = _linear(width, config.ffn_dim)
        self.fc2 = _linear(config.ffn_dim, width)
        self.final_layer_norm = nn.LayerNorm(width, eps)

    def __call__(self, x: mx.array, segment_ids: mx.array) -> mx.array:
        """x (B, L, C), segment_ids (B, L) -> (B, L, C)."""
        x, h = _add_norm(self.self_attn_layer_norm, x, None)
        x, h = _add_norm(self.final_layer_norm, x, self.self_attn(h, segment_ids))
        h = linear(h, self.fc1.weight, self.fc1.bias, activation="gelu")  # (B, L, FFN)
        return linear(h, self.fc2.weight, self.fc2.bias, residual=x)


class SelfAttention(nn.Module):
    """Attention of every token to the tokens of its own segment."""

    def __init__(self, config: ESM1Config):
        super().__init__()
        width = config.embed_dim
        self.num_heads = config.num_heads
        self.q_proj = _linear(width, width, gain=0.5**0.5)
        self.k_proj = _linear(width, width, gain=0.5**0.5)
        self.v_proj = _linear(width, width, gain=0.5**0.5)
        self.out_proj = _linear(width, width)

    def __call__(self, x: mx.array, segment_ids: mx.array) -> mx.array:
        """x (B, L, C), segment_ids (B, L) -> (B, L, C)."""
        layers = (self.q_proj, self.k_proj, self.v_proj)
        projected = linears(x, [p.weight for p in layers], [p.bias for p in layers])
        q, k, v = (self._heads(y) for y in projected)
        o = masked_attention(q, k, v, segment_ids=segment_ids)
        o = o.swapaxes(1, 2).reshape(x.shape)
        return linear(o, self.out_proj.weight, self.out_proj.bias)

    def _heads(self, x: mx.array) -> mx.array:
        """(B, L, C) -> (B, H, L, D), a view."""
        batch, length, width = x.shape
        return x.reshape(batch, length, self.num_heads, width // self.num_heads).swapaxes(1, 2)


class LMHead(nn.Module):
    """dense, GELU, LayerNorm, then the token table as the output projection, plus a bias."""

    def __init__(self, config: ESM1Config):
        super().__init__()
        self.dense = _linear(config.embed_dim, config.embed_dim)
        self.layer_norm = nn.LayerNorm(config.embed_dim, config.layer_norm_eps)
        self.bias = mx.zeros((config.vocab_size,))

    def __call__(self, x: mx.array, token_table: mx.array) -> mx.array:
        """x (..., C), token_table (V, C) -> logits (..., V)."""
        x = linear(x, self.dense.weight, self.dense.bias, activation="gelu")
        return linear(_norm(self.layer_norm, x), token_table, self.bias)


def _norm(parameters: nn.LayerNorm, x: mx.array) -> mx.array:
    """The layer norm of x (..., C) with these parameters."""
    return layer_norm(x, parameters.weight, parameters.bias, eps=parameters.eps)


def _add_norm(
    parameters: nn.LayerNorm, x: mx.array, delta: mx.array | None
) -> tuple[mx.array, mx.array]:
    """x + delta and its layer norm; the gradients of both uses are added up in one pass."""
    return add_layer_norm(x, delta, parameters.weight, parameters.bias, eps=parameters.eps)


def _embedding(rows: int, width: int, padding_idx: int) -> nn.Embedding:
    table = nn.Embedding(rows, width)
    table.weight = mx.random.normal((rows, width), scale=0.02)
    table.weight[padding_idx] = 0
    return table


def _linear(inputs: int, outputs: int, gain: float = 1.0) -> nn.Linear:
    """The parameters of a projection; the model applies them with its own `linear`."""
    layer = nn.Linear(inputs, outputs)
    bound = gain * (6 / (inputs + outputs)) ** 0.5
    layer.weight = mx.random.uniform(-bound, bound, (outputs, inputs))
    layer.bias = mx.zeros((outputs,))
    return layer
