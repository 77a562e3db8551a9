"""What is true: the three ops and the model in plain mlx.core and mlx.nn, with no op of ours.

Everything is written for clarity and accuracy, not speed: scores are materialised (L x L) and
every op computes in float32 whatever its inputs are, rounding once at the end. Arguments are
taken as valid; the compiled ops are the ones that check.
"""

from __future__ import annotations

import math
from collections.abc import Collection
from typing import Any

import mlx.core as mx
import mlx.nn as nn

from .config import ESM1Config


def masked_attention(
    q: mx.array,
    k: mx.array,
    v: mx.array,
    *,
    scale: float | None = None,
    segment_ids: mx.array | None = None,
    bias_k: mx.array | None = None,
    bias_v: mx.array | None = None,
) -> mx.array:
    """softmax(scale * q k^T) v among the positions that bear the same segment id.

    Args:
        q, k, v: (B, H, L, D), float32, float16 or bfloat16.
        scale: factor of the scores; D ** -0.5 where None.
        segment_ids: (B, L) integer, 0 = padding; None: all positions see each other.
        bias_k, bias_v: (H, D), one extra key and value that every query sees (ESM-1).

    Returns:
        (B, H, L, D) in the dtype of q. Rows of padding are exactly 0 and so are their gradients,
        whatever the padded rows of q, k and v hold.
    """
    batch, _, length, dim = q.shape
    if length == 0:
        return mx.zeros_like(q)
    dtype = q.dtype
    scale = dim**-0.5 if scale is None else scale
    q, k, v = (x.astype(mx.float32) for x in (q, k, v))

    visible = real = None
    if segment_ids is not None:
        real = (segment_ids != 0)[:, None, :, None]  # (B, 1, L, 1)
        # Padding is cleared first, since 0 * NaN would be NaN in both products below.
        q, k, v = (mx.where(real, x, 0.0) for x in (q, k, v))
        # Padding sees padding, so no row of scores is all -inf, whose softmax would be NaN.
        visible = segment_ids[:, None, :, None] == segment_ids[:, None, None, :]  # (B, 1, L, L)
    if bias_k is not None and bias_v is not None:
        k, v = _append_row(k, bias_k), _append_row(v, bias_v)  # (B, H, L + 1, D)
        if visible is not None:
            always = mx.ones((batch, 1, length, 1), dtype=mx.bool_)
            visible = mx.concatenate([visible, always], axis=-1)

    scores = (q * scale) @ k.swapaxes(-1, -2)  # (B, H, L, L)
    if visible is not None:
        scores = mx.where(visible, scores, -math.inf)
    o = mx.softmax(scores, axis=-1, precise=True) @ v  # (B, H, L, D)
    if real is not None:
        o = mx.where(real, o, 0.0)
    return o.astype(dtype)


def _append_row(x: mx.array, row: mx.array) -> mx.array:
    """x (B, H, L, D) with row (H, D) as position L of every batch row."""
    batch, heads, _, dim = x.shape
    row = mx.broadcast_to(row.astype(x.dtype)[None, :, None, :], (batch, heads, 1, dim))
    return mx.concatenate([x, row], axis=2)


def positional_embedding(
    tokens: mx.array,
    token_table: mx.array,
    position_table: mx.array,
    *,
    padding_idx: int,
    mask_idx: int | None = None,
    segment_ids: mx.array | None = None,
) -> mx.array:
    """Token row plus position row, positions restarting with each segment.

    The position row of a token is ``padding_idx + n``, where the token is the n-th (from 1) of
    its segment that is not padding. With mask_idx this is ESM's token dropout as well: the token
    part of masked tokens is 0, that of the others is scaled by
    ``0.88 / (1 - n_mask / n_nonpad)``, counted per segment (0 where all are masked), so that the
    sum over a protein stays what it was when 12 % were zeroed in training.

    Args:
        tokens: (B, L) integer.
        token_table: (V, C). position_table: (P, C), same dtype.
        padding_idx: the padding token. mask_idx: the mask token; None: no token dropout.
        segment_ids: (B, L) integer, 0 = padding; None: each row is one segment.

    Returns:
        (B, L, C) in the dtype of token_table; rows of padding are exactly 0.
    """
    dtype = token_table.dtype
    real = tokens != padding_idx  # (B, L)
    same = real[:, :, None] & real[:, None, :]  # (B, L, L)
    if segment_ids is not None:
        real = real & (segment_ids != 0)
        same = real[:, :, None] & (segment_ids[:, :, None] == segment_ids[:, None, :])
        same = same & real[:, None, :]
    count = mx.sum(mx.tril(same.astype(mx.int32)), axis=-1)  # (B, L), 1-based

    # Widened before the lookup, so that the gradient is summed in float32.
    token_table, position_table = (t.astype(mx.float32) for t in (token_table, position_table))
    x = mx.take(token_table, mx.where(real, tokens, padding_idx), axis=0)
    if mask_idx is not None:
        masked = tokens == mask_idx
        n_nonpad = mx.sum(same, axis=-1).astype(mx.float32)  # (B, L), that of the own segment
        n_mask = mx.sum(same & masked[:, None, :], axis=-1).astype(mx.float32)
        some_left = n_mask < n_nonpad
        kept = mx.where(some_left, 1 - n_mask / mx.maximum(n_nonpad, 1), 1)
        x_scale = mx.where(some_left & ~masked, 0.88 / kept, 0.0)
        x = x * x_scale[..., None]
    rows = mx.where(real, padding_idx + count, padding_idx)
    x = x + mx.take(position_table, rows, axis=0)
    return mx.where(real[..., None], x, 0.0).astype(dtype)


def rotary_angles(segment_ids: mx.array, dim: int, rounded_to: mx.Dtype = mx.float32) -> mx.array:
    """(B, L, D): cosines and sines of p 10000^(-2 i / D), p the place from 0 among equal ids.

    rounded_to: to which dtype the powers of 10000 are rounded.
    """
    length = segment_ids.shape[1]
    same = segment_ids[:, :, None] == segment_ids[:, None, :]
    before = mx.tril(mx.ones((length, length)), -1)
    position = mx.sum(mx.where(same, before, 0.0), axis=-1)  # (B, L)
    frequencies = mx.exp(mx.arange(dim // 2) * (-2 * math.log(1e4) / dim))
    frequencies = frequencies.astype(rounded_to).astype(mx.float32)
    angles = position[..., None] * frequencies
    return mx.concatenate([mx.cos(angles), mx.sin(angles)], axis=-1)


def rotary(x: mx.array, angles: mx.array) -> mx.array:
    """x (B, H, L, D) turned by angles (B, L, D), cosines and then sines.

    The numbers i and i + D / 2 of a head, as one complex number, times cosine + j sine.
    """
    half = x.shape[3] // 2
    wide, turn = x.astype(mx.float32), angles[:, None]
    turned = (wide[..., :half] + 1j * wide[..., half:]) * (turn[..., :half] + 1j * turn[..., half:])
    return mx.concatenate([mx.real(turned), mx.imag(turned)], axis=-1).astype(x.dtype)


def linear(
    x: mx.array,
    weight: mx.array,
    bias: mx.array | None = None,
    *,
    activation: str | None = None,
) -> mx.array:
    """activation(x weight^T + bias).

    Args:
        x: (..., I). weight: (O, I). bias: (O,) or None.
        activation: None, or "gelu": x * (1 + erf(x / sqrt 2)) / 2, the exact one.

    Returns:
        (..., O) in the dtype of x.
    """
    y = x.astype(mx.float32) @ weight.astype(mx.float32).T
    if bias is not None:
        y = y + bias.astype(mx.float32)
    if activation == "gelu":
        y = y * (1 + mx.erf(y / math.sqrt(2))) / 2
    elif activation is not None:
        raise ValueError(f'[linear] activation must be None or "gelu"; got {activation!r}.')
    return y.astype(x.dtype)


class ESM1Reference(nn.Module):
    """The models of the ESM family in plain mlx.nn.

    Same parameter tree and same calls as `mlx_esm_kernels.models.esm1.ESM1`.
    """

    def __init__(self, config: ESM1Config):
        super().__init__()
        self.config = config
        width, eps = config.embed_dim, config.layer_norm_eps
        self.embed_tokens = nn.Embedding(config.vocab_size, width)
        if config.has_position_table:
            self.embed_positions = nn.Embedding(config.num_position_rows, width)
        if config.emb_layer_norm_before:
            self.emb_layer_norm_before = nn.LayerNorm(width, eps)
        self.layers = [_Layer(config) for _ in range(config.num_layers)]
        if config.emb_layer_norm_after:
            self.emb_layer_norm_after = nn.LayerNorm(width, eps)
        if config.tied_output:
            self.lm_head = _LMHead(config)
        else:
            self.embed_out = mx.zeros((config.vocab_size, width))
            self.embed_out_bias = mx.zeros((config.vocab_size,))
        if config.contact_head:
            self.contact_head = _ContactHead(config)

    def __call__(
        self,
        tokens: mx.array,
        segment_ids: mx.array | None = None,
        *,
        repr_layers: Collection[int] = (),
        return_contacts: bool = False,
    ) -> dict[str, Any]:
        """tokens (B, L) -> {"logits": (B, L, V), "representations": {layer: (B, L, C)}}.

        With return_contacts also "contacts": (B, L', L'), from all attention maps at once.
        """
        hidden, maps = self._hidden_states(tokens, segment_ids)
        out = {
            "logits": self.head(hidden[-1]),
            "representations": {layer: hidden[layer] for layer in sorted(repr_layers)},
        }
        if return_contacts:
            out["contacts"] = self.contact_head(tokens, mx.concatenate(maps, axis=1))
        return out

    def encode(self, tokens: mx.array, segment_ids: mx.array | None = None) -> mx.array:
        """tokens (B, L) -> (B, L, C), the last representation."""
        return self._hidden_states(tokens, segment_ids)[0][-1]

    def head(self, x: mx.array) -> mx.array:
        """x (..., C) from `encode` -> logits (..., V)."""
        if self.config.tied_output:
            return self.lm_head(x, self.embed_tokens.weight)
        return x @ self.embed_out.T + self.embed_out_bias

    def _hidden_states(
        self, tokens: mx.array, segment_ids: mx.array | None
    ) -> tuple[list[mx.array], list[mx.array]]:
        """The embedding and the output of each layer, num_layers + 1 arrays (B, L, C).

        And the attention maps of each layer, (B, H, L, L).
        """
        config = self.config
        real = tokens != config.padding_idx
        if segment_ids is None:
            segment_ids = real.astype(mx.int32)
        else:
            segment_ids = mx.where(real, segment_ids, 0)
        token_table = self.embed_tokens.weight
        x = positional_embedding(
            tokens,
            token_table * math.sqrt(config.embed_dim) if config.scale_embedding else token_table,
            self._position_table(tokens.shape[1]),
            padding_idx=config.padding_idx,
            mask_idx=config.mask_idx if config.token_dropout else None,
            segment_ids=segment_ids,
        )
        if config.emb_layer_norm_before:
            x = self.emb_layer_norm_before(x)
            x = mx.where((segment_ids != 0)[..., None], x, 0.0)
        hidden, maps = [x], []
        for layer in self.layers:
            x, attention = layer(x, segment_ids)
            hidden.append(x)
            maps.append(attention)
        if config.emb_layer_norm_after:
            hidden[-1] = self.emb_layer_norm_after(hidden[-1])
        return hidden, maps

    def _position_table(self, length: int) -> mx.array:
        """(P, C): learned, or sin and cos of p exp(-i ln(10^4) / (C/2 - 1)) side by side; of
        rotary positions nothing."""
        if self.config.rotary_positions:
            rows = length + self.config.padding_idx + 1
            return mx.zeros((rows, self.config.embed_dim), self.embed_tokens.weight.dtype)
        if not self.config.sinusoidal_positions:
            return self.embed_positions.weight
        half = self.config.embed_dim // 2
        frequencies = mx.exp(mx.arange(half) * (-math.log(1e4) / (half - 1)))
        angles = mx.arange(length + self.config.padding_idx + 1)[:, None] * frequencies
        table = mx.concatenate([mx.sin(angles), mx.cos(angles)], axis=1)
        return table.astype(self.embed_tokens.weight.dtype)


class _Layer(nn.Module):
    def __init__(self, config: ESM1Config):
        super().__init__()
        width, eps = config.embed_dim, config.layer_norm_eps
        self.self_attn = _SelfAttention(config)
        self.self_attn_layer_norm = nn.LayerNorm(width, eps)
        self.fc1 = nn.Linear(width, config.ffn_dim)
        self.fc2 = nn.Linear(config.ffn_dim, width)
        self.final_layer_norm = nn.LayerNorm(width, eps)

    def __call__(self, x: mx.array, segment_ids: mx.array) -> tuple[mx.array, mx.array]:
        o, attention = self.self_attn(self.self_attn_layer_norm(x), segment_ids)
        x = x + o
        return x + self.fc2(nn.gelu(self.fc1(self.final_layer_norm(x)))), attention


class _SelfAttention(nn.Module):
    def __init__(self, config: ESM1Config):
        super().__init__()
        width = config.embed_dim
        self.num_heads, self.is_rotary = config.num_heads, config.rotary_positions
        self.rounded_to = getattr(mx, config.frequency_dtype)
        self.q_proj = nn.Linear(width, width)
        self.k_proj = nn.Linear(width, width)
        self.v_proj = nn.Linear(width, width)
        self.out_proj = nn.Linear(width, width)
        if config.bias_kv:
            self.bias_k = mx.zeros((1, 1, width))
            self.bias_v = mx.zeros((1, 1, width))

    def __call__(self, x: mx.array, segment_ids: mx.array) -> tuple[mx.array, mx.array]:
        """x (B, L, C), segment_ids (B, L) -> the same, and the maps (B, H, L, L) in float32."""
        heads = (*x.shape[:2], self.num_heads, -1)
        q, k, v = (
            project(x).reshape(heads).swapaxes(1, 2)  # (B, H, L, D)
            for project in (self.q_proj, self.k_proj, self.v_proj)
        )
        if self.is_rotary:
            angles = rotary_angles(segment_ids, q.shape[-1], self.rounded_to)
            q, k = rotary(q, angles), rotary(k, angles)
        biases = {
            name: self[name].reshape(self.num_heads, -1)
            for name in ("bias_k", "bias_v")
            if name in self
        }
        o = masked_attention(q, k, v, segment_ids=segment_ids, **biases)
        # Attending to the rows of the identity gives the attention itself.
        identity = mx.broadcast_to(mx.eye(x.shape[1]), (*q.shape[:2], x.shape[1], x.shape[1]))
        q, k = q.astype(mx.float32), k.astype(mx.float32)
        if biases:
            biases["bias_v"] = mx.zeros((self.num_heads, x.shape[1]))
        maps = masked_attention(q, k, identity, segment_ids=segment_ids, **biases)
        return self.out_proj(o.swapaxes(1, 2).reshape(x.shape)), maps


class _ContactHead(nn.Module):
    """fair-esm's ContactPredictionHead: symmetrise, correct by average products, regress."""

    def __init__(self, config: ESM1Config):
        super().__init__()
        self.config = config
        self.regression = nn.Linear(config.num_layers * config.num_heads, 1)

    def __call__(self, tokens: mx.array, maps: mx.array) -> mx.array:
        """tokens (B, L), maps (B, layers x heads, L, L) -> (B, L', L')."""
        config = self.config
        if config.append_eos:
            kept = tokens != config.eos_idx
            maps = mx.where(kept[:, None, :, None] & kept[:, None, None, :], maps, 0)
            maps = maps[..., :-1, :-1]
        if config.prepend_cls:
            maps = maps[..., 1:, 1:]
        maps = maps + maps.swapaxes(-1, -2)
        product = maps.sum(axis=-1, keepdims=True) * maps.sum(axis=-2, keepdims=True)
        total = maps.sum(axis=(-1, -2), keepdims=True)
        features = (maps - product / mx.where(total == 0, 1, total)).transpose(0, 2, 3, 1)
        regression = self.regression
        weight, bias = (p.astype(mx.float32) for p in (regression.weight, regression.bias))
        return mx.sigmoid(features @ weight[0] + bias)


class _LMHead(nn.Module):
    def __init__(self, config: ESM1Config):
        super().__init__()
        self.dense = nn.Linear(config.embed_dim, config.embed_dim)
        self.layer_norm = nn.LayerNorm(config.embed_dim, config.layer_norm_eps)
        self.bias = mx.zeros((config.vocab_size,))

    def __call__(self, x: mx.array, token_table: mx.array) -> mx.array:
        x = self.layer_norm(nn.gelu(self.dense(x)))
        return x @ token_table.T + self.bias
