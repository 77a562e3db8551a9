"""Contacts of a protein that is too long for an L x L array: some rows of the map at a time.

The formula is that of `contact_head`. With l_h(i) the log of the sum of the powers of query i,

    A_h[i, j] = exp(q_i k_j - l_h(i))

so any rows of S_h = A_h + A_h^T can be made on their own from the queries, the keys and l_h, which
are O(L). The queries and keys of all layers are kept. The maps are gone through once for l_h and
r_h, and each of them is made twice more, as it stands and transposed, for the rows.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

import mlx.core as mx
import numpy as np

from ..ops import linear
from .config import ESM1Config
from .contact_head import MASKED, ContactHead, kept_residues

# Of the work: the model, the first pass over the maps, and the rows, about.
_MODEL, _SUMS, _ROWS = 0.25, 0.25, 0.5
# Numbers in the part of a map that is made at once: few enough to stay in cache.
_NUMBERS_AT_ONCE = 1 << 20


class ContactRows:
    """Takes the queries and keys of one layer after the other, and gives the contacts by rows.

    Args:
        head: its weights.
        config: of the model.
        tokens: (L,) integer, one protein.
        real: (L,) bool, False at padding.
    """

    def __init__(self, head: ContactHead, config: ESM1Config, tokens: mx.array, real: mx.array):
        self._residues, kept = kept_residues(config, tokens[None], real[None])
        self._kept = kept[0]  # (L,) float32
        self._mask = mx.where(real, 0.0, MASKED)[:, None]
        weight, self._bias = head.coefficients()
        self._weights: list[float] = np.array(weight).tolist()
        self._layers: list[tuple[mx.array, mx.array, mx.array | None]] = []

    def add(self, q: mx.array, k: mx.array, bias_k: mx.array | None) -> None:
        """Keep what a layer's attention maps are made of; arguments as of `ContactMap.add`."""
        self._layers.append((q[0], k[0], bias_k))

    def rows(self, on_step: Callable[[float], object]) -> Iterator[mx.array]:
        """The (L', L') contacts, once all layers were added, as (n, L') float32, evaluated.

        They can be gone through once.

        Args:
            on_step: called with the share of the work that was done since the last call.
        """
        heads, marginals = self._heads(on_step)  # 2 (L, D + 2) each, and r_h (H, L)
        totals = marginals.sum(axis=1, keepdims=True)
        scale = mx.array(self._weights)[:, None] / mx.where(totals == 0, 1, totals)
        scaled, marginals = (marginals * scale).T, marginals.T
        mx.eval(scaled, marginals)
        for rows in self._blocks(self._residues):
            total = mx.zeros((rows.stop - rows.start, len(self._kept)))
            for weight, (q, k) in zip(self._weights, heads, strict=True):
                both = _exp(linear(q[rows], k)) + _exp(linear(k[rows], q))
                total = total + weight * both
                mx.eval(total)  # lest many maps be waiting to be added
            logits = total * self._kept[rows, None] * self._kept + self._bias
            contacts = mx.sigmoid(logits - linear(scaled[rows], marginals))[:, self._residues]
            mx.eval(contacts)
            on_step(_ROWS * len(contacts) / contacts.shape[1])
            yield contacts

    def _heads(
        self, on_step: Callable[[float], object]
    ) -> tuple[list[tuple[mx.array, mx.array]], mx.array]:
        """Of every head its queries and keys, such that exp(q k^T) is its map, and its r_h."""
        for layer in self._layers:
            mx.eval(layer)
            on_step(_MODEL / len(self._layers))
        heads, marginals = [], []
        count = len(self._layers)
        while self._layers:
            layer_q, layer_k, layer_bias = self._layers.pop(0)
            for number, (q, k) in enumerate(zip(layer_q, layer_k, strict=True)):
                bias = None if layer_bias is None else layer_bias[number]
                q = q.astype(mx.float32) * q.shape[-1] ** -0.5
                k = k.astype(mx.float32)
                lse, marginal = self._sums(q, k, bias)
                one = mx.ones_like(self._mask)
                # Two columns more, that the mask be added to each product and l_h taken from it.
                q = mx.concatenate([q, one, -lse], axis=1)
                k = mx.concatenate([k, self._mask, one], axis=1)
                mx.eval(q, k, marginal)
                on_step(_SUMS / (count * len(layer_q)))
                heads.append((q, k))
                marginals.append(marginal)
        return heads, mx.stack(marginals)

    def _sums(self, q: mx.array, k: mx.array, bias_k: mx.array | None) -> tuple[mx.array, mx.array]:
        """l_h (L, 1) and r_h (L,) of one head."""
        length = len(self._kept)
        kept, mask = self._kept, self._mask
        if bias_k is not None:  # a key of its own, and no residue
            k = mx.concatenate([k, bias_k.astype(mx.float32)[None]])
            kept, mask = mx.pad(kept, (0, 1)), mx.pad(mask, [(0, 1), (0, 0)])
        q = mx.concatenate([q, mx.ones_like(self._mask)], axis=1)
        k = mx.concatenate([k, mask], axis=1)
        summed = mx.stack([kept, mx.ones_like(kept)])
        given = mx.zeros((1, len(kept)))
        parts = []
        for rows in self._blocks(slice(0, length)):
            logits = linear(q[rows], k)
            top = logits.max(axis=1, keepdims=True)
            powers = _exp(logits - top)
            taken, total = mx.split(linear(powers, summed), 2, axis=1)  # (n, 1)
            given = given + (self._kept[rows, None] / total).T @ powers
            parts.append((top + mx.log(total), taken / total))
            mx.eval(given, parts[-1])
        lse, taken = (mx.concatenate(list(some)) for some in zip(*parts, strict=True))
        return lse, (given[0, :length] + taken[:, 0]) * self._kept

    def _blocks(self, rows: slice) -> Iterator[slice]:
        step = max(1, _NUMBERS_AT_ONCE // max(1, len(self._kept)))
        for start in range(rows.start, rows.stop, step):
            yield slice(start, min(start + step, rows.stop))


def _exp(x: mx.array) -> mx.array:
    """exp; on a CPU numpy's, which takes a tenth of the time that MLX's takes on Linux."""
    if mx.default_device().type == mx.gpu:
        return mx.exp(x)
    return mx.array(np.exp(np.asarray(x)))
