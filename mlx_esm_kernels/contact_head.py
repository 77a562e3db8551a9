"""From attentions to contacts: a logistic regression over the attention maps of all heads.

Rao et al. 2020, "Transformer protein language models are unsupervised structure learners", as in
fair-esm's `ContactPredictionHead`. With A_h the map of head h on the residues, w_h its weight and b
the bias:

    S_h = A_h + A_h^T        r_h = S_h 1        t_h = 1^T r_h
    contacts = sigmoid(b + sum_h w_h (S_h - r_h r_h^T / t_h))

The sum over S_h is one L x L array, to which each map is added as it is made. What is left of a map
are the L numbers of r_h, and sum_h (w_h / t_h) r_h r_h^T is one matrix product at the end. So the
memory is O(L^2), for any number of heads.
"""

from __future__ import annotations

import mlx.core as mx
import mlx.nn as nn

from .config import ESM1Config

# Numbers in the maps that are made at once: those of all heads where proteins are short.
_MAPS_AT_ONCE = 1 << 22


class ContactHead(nn.Module):
    """The regression: one weight for each head of each layer, and a bias."""

    def __init__(self, config: ESM1Config):
        super().__init__()
        self.regression = nn.Linear(config.num_layers * config.num_heads, 1)


class ContactSum:
    """Takes the queries and keys of one layer after the other, and gives the contacts.

    Args:
        head: its weights.
        config: of the model.
        tokens: (B, L) integer, one protein in each row.
        real: (B, L) bool, False at padding.
    """

    def __init__(self, head: ContactHead, config: ESM1Config, tokens: mx.array, real: mx.array):
        batch, length = tokens.shape
        self._real = real
        self._residues = slice(
            int(config.prepend_cls), max(length - int(config.append_eos), int(config.prepend_cls))
        )
        column = mx.arange(length)
        kept = real & (column >= self._residues.start) & (column < self._residues.stop)
        if config.append_eos:
            kept = kept & (tokens != config.eos_idx)
        self._kept = kept.astype(mx.float32)
        self._weight = head.regression.weight[0].astype(mx.float32)  # (layers * heads,)
        self._bias = head.regression.bias.astype(mx.float32)
        self._num_added = 0
        self._sum = mx.zeros((batch, length, length))
        self._marginals: list[mx.array] = []  # r_h, (B, heads, L) each

    def add(self, q: mx.array, k: mx.array, bias_k: mx.array | None) -> None:
        """Add the attention maps of a layer.

        Args:
            q, k: (B, H, L, D), not scaled.
            bias_k: (H, D), one more key that takes its share of the attention, or None.
        """
        batch, heads, length, _ = q.shape
        at_once = max(1, _MAPS_AT_ONCE // max(batch * length * length, 1))
        for first in range(0, heads, at_once):
            some = slice(first, min(first + at_once, heads))
            maps = self._maps(q[:, some], k[:, some], None if bias_k is None else bias_k[some])
            kept = self._kept[:, None]  # (B, 1, L)
            sums = (maps @ kept[..., None])[..., 0] + (kept[..., None, :] @ maps)[..., 0, :]
            self._marginals.append(sums * kept)
            count = maps.shape[1]
            weight = self._weight[self._num_added : self._num_added + count]
            self._num_added += count
            weighted = weight[None, None] @ maps.reshape(batch, count, -1)
            self._sum = self._sum + weighted.reshape(self._sum.shape)

    def contacts(self) -> mx.array:
        """(B, L', L') float32 in [0, 1], L' = L less cls and eos, once all layers were added."""
        marginals = mx.concatenate(self._marginals, axis=1)  # (B, layers * heads, L)
        totals = marginals.sum(axis=-1)  # (B, layers * heads)
        scale = self._weight / mx.where(totals == 0, 1, totals)  # a row of padding alone has 0
        product = (marginals * scale[..., None]).swapaxes(1, 2) @ marginals
        kept = self._kept[:, :, None] * self._kept[:, None, :]
        logits = (self._sum + self._sum.swapaxes(1, 2)) * kept - product + self._bias
        return mx.sigmoid(logits[:, self._residues, self._residues])

    def _maps(self, q: mx.array, k: mx.array, bias_k: mx.array | None) -> mx.array:
        """The attention maps (B, heads, L, L) of some heads, in float32."""
        scaled = q.astype(mx.float32) * q.shape[-1] ** -0.5
        scores = scaled @ k.astype(mx.float32).swapaxes(-1, -2)
        # Not -inf: a row of padding alone would be NaN.
        scores = mx.where(self._real[:, None, None], scores, mx.finfo(mx.float32).min)
        if bias_k is not None:
            more = scaled @ bias_k.astype(mx.float32)[None, :, :, None]  # (B, heads, L, 1)
            scores = mx.concatenate([scores, more], axis=-1)
        maps = mx.softmax(scores, axis=-1)
        return maps[..., : k.shape[2]]
