"""From attentions to contacts: a logistic regression over the attention maps of all heads.

Rao et al. 2020, "Transformer protein language models are unsupervised structure learners", as in
fair-esm's `ContactPredictionHead`. With A_h the map of head h on the residues, w_h its weight and b
the bias:

    S_h = A_h + A_h^T        r_h = S_h 1        t_h = 1^T r_h
    contacts = sigmoid(b + sum_h w_h (S_h - r_h r_h^T / t_h))

The sum over S_h is one L x L array, to which each map is added as it is made. What is left of a map
are the L numbers of r_h, and sum_h (w_h / t_h) r_h r_h^T is one matrix product at the end. So the
memory is O(L^2), for any number of heads. For proteins that are too long for it see `contact_rows`.
"""

from __future__ import annotations

from typing import Protocol

import mlx.core as mx
import mlx.nn as nn

from ..ops import linear
from ..system.errors import UserError
from .config import ESM1Config
from .layers import Linear, affine_map

# Numbers in the maps that are made at once: those of all heads where proteins are short.
_MAPS_AT_ONCE = 1 << 22
# What a key of padding has instead of a product. Not -inf: a row of padding alone would be NaN.
MASKED = -1e30


def require_contact_head(config: ESM1Config) -> None:
    """Raise UserError where a model of this config cannot predict contacts."""
    if not config.contact_head:
        raise UserError(
            "this model has no contact regression, so it cannot predict contacts. The released "
            "ESM-1, ESM-1b and ESM-2 have one, in NAME-contact-regression.pt beside NAME.pt; "
            "ESM-1v has none."
        )


class ContactHead(nn.Module):
    """The regression: one weight for each head of each layer, and a bias."""

    def __init__(self, config: ESM1Config):
        super().__init__()
        self.num_maps = config.num_layers * config.num_heads
        self.regression = Linear(self.num_maps, 1, gain=None)

    def coefficients(self) -> tuple[mx.array, mx.array]:
        """The weights (layers * heads,) and the bias (1,), in float32."""
        weight, bias = affine_map(self.regression, self.num_maps)
        return weight[0].astype(mx.float32), bias.astype(mx.float32)


class ContactSum(Protocol):
    """Takes the queries and keys of one layer after the other."""

    def add(self, q: mx.array, k: mx.array, bias_k: mx.array | None) -> None:
        """Add the attention maps of a layer.

        Args:
            q, k: (B, H, L, D), not scaled; turned already, where positions are rotary.
            bias_k: (H, D), one more key that takes its share of the attention, or None.
        """


def kept_residues(config: ESM1Config, tokens: mx.array, real: mx.array) -> tuple[slice, mx.array]:
    """Where the residues are among the columns, and (B, L) float32, 1 at them and 0 elsewhere.

    Args:
        config: of the model.
        tokens: (B, L) integer, one protein in each row.
        real: (B, L) bool, False at padding.
    """
    length = tokens.shape[1]
    first = int(config.prepend_cls)
    residues = slice(first, max(length - int(config.append_eos), first))
    column = mx.arange(length)
    kept = real & (column >= residues.start) & (column < residues.stop)
    if config.append_eos:
        kept = kept & (tokens != config.eos_idx)
    return residues, kept.astype(mx.float32)


class ContactMap:
    """Takes the queries and keys of one layer after the other, and gives the contacts.

    Args:
        head: its weights.
        config: of the model.
        tokens: (B, L) integer, one protein in each row.
        real: (B, L) bool, False at padding.
    """

    def __init__(self, head: ContactHead, config: ESM1Config, tokens: mx.array, real: mx.array):
        batch, length = tokens.shape
        self._residues, self._kept = kept_residues(config, tokens, real)
        # A column more of the keys, to which every query answers 1.
        self._mask = mx.where(real, 0.0, MASKED)[:, None, :, None]  # (B, 1, L, 1)
        self._keys = length + int(config.bias_kv)
        self._weight, self._bias = head.coefficients()
        self._num_added = 0
        self._sum = mx.zeros((batch, length, self._keys))
        self._marginals: list[mx.array] = []  # r_h, (B, heads, L) each

    def add(self, q: mx.array, k: mx.array, bias_k: mx.array | None) -> None:
        """See `ContactSum.add`."""
        batch, heads, length, _ = q.shape
        at_once = max(1, _MAPS_AT_ONCE // max(batch * length * length, 1))
        for first in range(0, heads, at_once):
            some = slice(first, min(first + at_once, heads))
            # MLX orders its work as it likes, and what is not used up is kept. So the maps before
            # are used up first.
            (q,) = mx.depends([q], [self._sum, *self._marginals[-1:]])
            maps = self._maps(q[:, some], k[:, some], None if bias_k is None else bias_k[some])
            kept = self._kept[:, None, None]  # (B, 1, 1, L)
            given = (kept @ maps)[..., 0, :length]  # what each residue gets from the others
            taken = (maps[..., :length] @ kept.swapaxes(-1, -2))[..., 0]
            self._marginals.append((given + taken) * self._kept[:, None])
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
        marginals, scale = marginals.swapaxes(1, 2), scale[:, None]
        product = _products(marginals * scale, marginals)
        kept = self._kept[:, :, None] * self._kept[:, None, :]
        maps = self._sum[..., : self._kept.shape[1]]
        logits = (maps + maps.swapaxes(1, 2)) * kept - product + self._bias
        return mx.sigmoid(logits[:, self._residues, self._residues])

    def _maps(self, q: mx.array, k: mx.array, bias_k: mx.array | None) -> mx.array:
        """The attention maps (B, heads, L, keys) of some heads, in float32; bias_k is the last."""
        q, k = q.astype(mx.float32) * q.shape[-1] ** -0.5, k.astype(mx.float32)
        q = mx.concatenate([q, mx.ones((*q.shape[:3], 1))], axis=-1)
        k = mx.concatenate([k, mx.broadcast_to(self._mask, (*k.shape[:3], 1))], axis=-1)
        if bias_k is not None:
            row = mx.pad(bias_k.astype(mx.float32), [(0, 0), (0, 1)])[None, :, None]
            row = mx.broadcast_to(row, (k.shape[0], *row.shape[1:]))
            k = mx.concatenate([k, row], axis=2)
        return mx.softmax(_products(q, k), axis=-1)


def _products(x: mx.array, y: mx.array) -> mx.array:
    """x (..., M, D), y (..., N, D) -> x y^T (..., M, N), by `linear`: on a CPU faster than `@`."""
    rows, columns = x.shape[-2:], y.shape[-2:]
    pairs = zip(x.reshape(-1, *rows), y.reshape(-1, *columns), strict=True)
    products = mx.stack([linear(a, b) for a, b in pairs])
    return products.reshape(*x.shape[:-1], columns[0])
