"""The ops in float64 numpy, forward and hand-derived gradients, with nothing of MLX.

Written as the definitions read, one array per formula, to be checked by eye and by
test_truth.py (loops, complex step, finite differences). All inputs are numpy arrays; the forward
functions of all but AdamW and the int8 product take complex ones as well, for the complex step. The
self-test, the command doctor and the tests judge by it.
"""

from __future__ import annotations

import math
from collections import Counter
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]
Gradients = dict[str, Array]


@dataclass(frozen=True)
class AttentionTerms:
    """What forward, gradients and rounding bounds of masked attention share.

    M is L, or L + 1 where the bias key and value are appended as the last ones. Padded rows of q,
    k and v are 0 here, whatever they held, and so are the rows of p that belong to padding.
    """

    q: Array  # (B, H, L, D)
    k: Array  # (B, H, M, D)
    v: Array  # (B, H, M, D)
    p: Array  # (B, H, L, M), the softmax
    visible: Array  # (B, 1, L, M), bool
    real: Array  # (B, 1, L, 1), bool
    scale: float


def attention_terms(
    q: Array,
    k: Array,
    v: Array,
    *,
    scale: float | None = None,
    segment_ids: Array | None = None,
    bias_k: Array | None = None,
    bias_v: Array | None = None,
) -> AttentionTerms:
    """Softmax of the scores among the positions that bear the same id; arguments as the op's."""
    batch, heads, length, dim = q.shape
    ids = np.ones((batch, length), int) if segment_ids is None else segment_ids
    real = (ids != 0)[:, None, :, None]
    q, k, v = (np.where(real, x, 0) for x in (q, k, v))
    visible = (ids[:, None, :, None] == ids[:, None, None, :]) & real
    if bias_k is not None and bias_v is not None:
        row = (batch, heads, 1, dim)
        k = np.concatenate([k, np.broadcast_to(bias_k[None, :, None, :], row)], axis=2)
        v = np.concatenate([v, np.broadcast_to(bias_v[None, :, None, :], row)], axis=2)
        visible = np.concatenate([visible, real], axis=3)
    scale = dim**-0.5 if scale is None else scale
    s = scale * (q @ k.swapaxes(2, 3))
    highest = np.where(visible, s.real, -np.inf).max(axis=3, keepdims=True, initial=-np.inf)
    e = np.where(visible, np.exp(np.where(visible, s - highest, 0)), 0)
    p = e / np.where(real, e.sum(axis=3, keepdims=True), 1)
    return AttentionTerms(q, k, v, p, visible, real, scale)


def masked_attention(
    q: Array,
    k: Array,
    v: Array,
    *,
    scale: float | None = None,
    segment_ids: Array | None = None,
    bias_k: Array | None = None,
    bias_v: Array | None = None,
) -> Array:
    """o (B, H, L, D) = P V."""
    terms = attention_terms(
        q, k, v, scale=scale, segment_ids=segment_ids, bias_k=bias_k, bias_v=bias_v
    )
    return terms.p @ terms.v


def masked_attention_gradients(
    do: Array,
    q: Array,
    k: Array,
    v: Array,
    *,
    scale: float | None = None,
    segment_ids: Array | None = None,
    bias_k: Array | None = None,
    bias_v: Array | None = None,
) -> Gradients:
    """dq, dk, dv and, with biases, dbias_k and dbias_v of sum(do * o).

    dV = P^T dO, dP = dO V^T, dS = P (dP - rowsum(P dP)), dQ = scale dS K, dK = scale dS^T Q.
    """
    t = attention_terms(q, k, v, scale=scale, segment_ids=segment_ids, bias_k=bias_k, bias_v=bias_v)
    return attention_gradients(np.where(t.real, do, 0), t)


def attention_gradients(do: Array, t: AttentionTerms) -> Gradients:
    """The same of terms at hand, and of a do that is 0 on padding."""
    dp = do @ t.v.swapaxes(2, 3)
    ds = t.p * (dp - (t.p * dp).sum(axis=3, keepdims=True))
    dq = t.scale * (ds @ t.k)
    dk = t.scale * (ds.swapaxes(2, 3) @ t.q)
    dv = t.p.swapaxes(2, 3) @ do
    return {"dq": dq} | split_bias_rows(dk, dv, length=t.q.shape[2])


def split_bias_rows(dk: Array, dv: Array, *, length: int) -> Gradients:
    """dk, dv (B, H, M, D) to those of the keys and, where M = L + 1, those of the biases."""
    gradients = {"dk": dk[:, :, :length], "dv": dv[:, :, :length]}
    if dk.shape[2] > length:
        gradients |= {"dbias_k": dk[:, :, length].sum(axis=0)}
        gradients |= {"dbias_v": dv[:, :, length].sum(axis=0)}
    return gradients


def position_rows(
    tokens: Array, *, padding_idx: int, segment_ids: Array | None = None
) -> NDArray[np.int64]:
    """(B, L): padding_idx + n for the n-th token (from 1) of its segment; padding: padding_idx."""
    rows = np.full(tokens.shape, padding_idx, np.int64)
    ids = np.ones(tokens.shape, int) if segment_ids is None else segment_ids
    for b in range(tokens.shape[0]):
        seen: Counter[int] = Counter()
        for i, (token, segment) in enumerate(zip(tokens[b].tolist(), ids[b].tolist(), strict=True)):
            if token != padding_idx and segment != 0:
                seen[segment] += 1
                rows[b, i] += seen[segment]
    return rows


def token_scales(
    tokens: Array,
    *,
    padding_idx: int,
    mask_idx: int | None = None,
    segment_ids: Array | None = None,
) -> NDArray[np.float64]:
    """(B, L): the factor of each token's row; 0 for padding and, with mask_idx, for mask tokens.

    With mask_idx the others have 0.88 / (1 - n_mask / n_nonpad), counted over their segment.
    """
    scales = np.zeros(tokens.shape)
    ids = np.ones(tokens.shape, int) if segment_ids is None else segment_ids
    for b in range(tokens.shape[0]):
        real = [
            (i, token, segment)
            for i, (token, segment) in enumerate(
                zip(tokens[b].tolist(), ids[b].tolist(), strict=True)
            )
            if token != padding_idx and segment != 0
        ]
        n_nonpad = Counter(segment for _, _, segment in real)
        n_mask = Counter(segment for _, token, segment in real if token == mask_idx)
        for i, token, segment in real:
            if mask_idx is None:
                scales[b, i] = 1
            elif token != mask_idx:
                scales[b, i] = 0.88 / (1 - n_mask[segment] / n_nonpad[segment])
    return scales


@dataclass(frozen=True)
class EmbeddingTerms:
    """What forward, gradients and rounding bounds of the positional embedding share, (B, L) each.

    A token whose table, or whose place in the position table, does not exist is `outside`; it
    counts in its segment. Indices of rows that are not read are 0.
    """

    tokens: NDArray[np.int64]
    positions: NDArray[np.int64]
    scales: NDArray[np.float64]  # 0 where the token's row is not read
    read: NDArray[np.bool_]  # neither padding nor outside
    outside: NDArray[np.bool_]


def embedding_terms(
    tokens: Array,
    token_table: Array,
    position_table: Array,
    *,
    padding_idx: int,
    mask_idx: int | None = None,
    segment_ids: Array | None = None,
) -> EmbeddingTerms:
    """The row of each table and the factor of every token; arguments as the op's."""
    rows = position_rows(tokens, padding_idx=padding_idx, segment_ids=segment_ids)
    scales = token_scales(
        tokens, padding_idx=padding_idx, mask_idx=mask_idx, segment_ids=segment_ids
    )
    real = rows > padding_idx
    known = (tokens >= 0) & (tokens < len(token_table)) & (rows < len(position_table))
    read = real & known
    return EmbeddingTerms(
        tokens=np.where(read, tokens, 0).astype(np.int64),
        positions=np.where(read, rows, 0),
        scales=np.where(read, scales, 0),
        read=read,
        outside=real & ~known,
    )


def positional_embedding(
    tokens: Array, token_table: Array, position_table: Array, **options: Any
) -> Array:
    """x (B, L, C) = scale * token row + position row; padding is 0, what is outside is NaN.

    options: padding_idx, mask_idx and segment_ids, as `embedding_terms` has them.
    """
    t = embedding_terms(tokens, token_table, position_table, **options)
    x = t.scales[..., None] * token_table[t.tokens] + position_table[t.positions]
    return np.where(t.read[..., None], x, np.where(t.outside[..., None], np.nan, 0))


def positional_embedding_gradients(
    dx: Array, tokens: Array, token_table: Array, position_table: Array, **options: Any
) -> Gradients:
    """dtoken_table and dposition_table: each row of dx added to the rows that made it.

    What is outside adds to neither. options as in `positional_embedding`.
    """
    t = embedding_terms(tokens, token_table, position_table, **options)
    dx = np.where(t.read[..., None], dx, 0)
    dtoken_table = np.zeros(token_table.shape)
    dposition_table = np.zeros(position_table.shape)
    np.add.at(dtoken_table, t.tokens, t.scales[..., None] * dx)
    np.add.at(dposition_table, t.positions, dx)
    return {"dtoken_table": dtoken_table, "dposition_table": dposition_table}


_erfc = np.frompyfunc(math.erfc, 1, 1)


def normal_cdf(z: Array) -> NDArray[np.float64]:
    """erfc(-z / sqrt 2) / 2, which is (1 + erf(z / sqrt 2)) / 2 and cancels nowhere."""
    return np.asarray(_erfc(-z / math.sqrt(2)), dtype=np.float64) / 2


def normal_density(z: Array) -> NDArray[np.float64]:
    """exp(-z^2 / 2) / sqrt(2 pi)."""
    return np.asarray(np.exp(-z * z / 2) / math.sqrt(2 * math.pi))


def linear(
    x: Array, weight: Array, bias: Array | None = None, *, activation: str | None = None
) -> Array:
    """y (..., O) = activation(x W^T + b)."""
    z = x @ weight.T + (0 if bias is None else bias)
    y: Array = z * normal_cdf(z) if activation == "gelu" else z
    return y


def linear_gradients(
    dy: Array,
    x: Array,
    weight: Array,
    bias: Array | None = None,
    *,
    activation: str | None = None,
) -> Gradients:
    """dx = dz W, dweight = dz^T x and dbias = sum of dz, with gelu'(z) = cdf(z) + z density(z)."""
    z = x @ weight.T + (0 if bias is None else bias)
    dz = dy * (normal_cdf(z) + z * normal_density(z)) if activation == "gelu" else dy
    rows_dz, rows_x = dz.reshape(-1, dz.shape[-1]), x.reshape(-1, x.shape[-1])
    gradients = {"dx": dz @ weight, "dweight": rows_dz.T @ rows_x}
    return gradients if bias is None else gradients | {"dbias": rows_dz.sum(axis=0)}


def quantised_rows(x: Array) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    """Whole numbers q (..., I) of -127 ... 127, and s (..., 1), what a unit of each row is worth.

    s = max |x| / 127 and q = round(127 / max |x| * x), ties to even, each operation in float32 as
    csrc/int8_linear/int8_linear.md has it, so that q is the op's to the last unit. A row whose
    largest magnitude is below 2^-100 has an s of 0; one with NaN or infinity has NaN.
    """
    x = np.asarray(x, np.float32)
    largest = np.abs(x).max(axis=-1, keepdims=True)
    nothing, bad = largest < np.float32(2.0**-100), ~np.isfinite(largest)
    with np.errstate(all="ignore"):
        q = np.rint(x * (np.float32(127) / largest))
    q = np.where(nothing | bad, 0, q)
    s = np.where(bad, np.nan, np.where(nothing, 0, largest / np.float32(127)))
    return q.astype(np.int64), s.astype(np.float64)


def int8_linear(
    x: Array,
    weight: Array,
    scale: Array,
    bias: Array | None = None,
    *,
    activation: str | None = None,
    residual: Array | None = None,
) -> Array:
    """y (..., O) = activation(s scale (q W^T) + b) + residual of `quantised_rows` of x.

    weight is whole numbers (O, I), whose sums are exact, and scale (O,). It has no gradient.
    """
    q, s = quantised_rows(x)
    h = (q @ weight.astype(np.int64).T) * s * scale + (0 if bias is None else bias)
    y: Array = h * normal_cdf(h) if activation == "gelu" else h
    return y if residual is None else y + residual


def _normalised(s: Array, eps: float) -> tuple[Array, Array]:
    """(s - mean) * r over the last axis, and r = 1 / sqrt(variance + eps)."""
    centred = s - s.mean(axis=-1, keepdims=True)
    r = 1 / np.sqrt((centred**2).mean(axis=-1, keepdims=True) + eps)
    return centred * r, r


def layer_norm(s: Array, weight: Array, bias: Array, *, eps: float) -> Array:
    """(..., C): weight n + bias, with n of mean 0 and variance 1 in each row."""
    y: Array = _normalised(s, eps)[0] * weight + bias
    return y


def layer_norm_gradients(dy: Array, s: Array, weight: Array, *, eps: float) -> Gradients:
    """ds, dweight and dbias: n depends on s by itself, by the mean and by the variance."""
    n, r = _normalised(s, eps)
    g = dy * weight
    mean_g, mean_gn = g.mean(axis=-1, keepdims=True), (g * n).mean(axis=-1, keepdims=True)
    rows = tuple(range(s.ndim - 1))
    return {
        "ds": r * (g - mean_g - n * mean_gn),
        "dweight": (dy * n).sum(axis=rows),
        "dbias": dy.sum(axis=rows),
    }


def adamw(
    arrays: dict[str, Array],
    *,
    rate: float,
    t: int,
    beta_1: float,
    beta_2: float,
    weight_decay: float,
    clip_norm: float,
    epsilon: float = 1e-8,
) -> dict[str, Array]:
    """The step t, from 1, of one parameter, as the algorithm is printed.

    arrays: w, g, m and v, of one shape; the new w, m and v come back, and the norm of g.
    """
    w, g, m, v = (arrays[name] for name in "wgmv")
    norm = np.sqrt((g**2).sum())
    g = g * min(1, clip_norm / norm) if norm else g
    m, v = beta_1 * m + (1 - beta_1) * g, beta_2 * v + (1 - beta_2) * g**2
    step = m / (1 - beta_1**t) / (np.sqrt(v / (1 - beta_2**t)) + epsilon)
    decay = weight_decay if w.ndim > 1 else 0
    return {"w": w - rate * (step + decay * w), "m": m, "v": v, "norm": norm}


def rotary(x: Array, angles: Array) -> Array:
    """y (B, H, L, D): the halves of a head, as complex numbers, times cos + j sin.

    angles: (B, L, D), cosines and then sines; any numbers.
    """
    a, b, cos, sin = (*_halves(x), *_halves(angles[:, None]))
    return np.concatenate([a * cos - b * sin, b * cos + a * sin], axis=-1)


def rotary_gradients(dy: Array, x: Array, angles: Array) -> Gradients:
    """dx, which turns back, and dangles, a sum over heads."""
    a, b, da, db = (*_halves(x), *_halves(dy))
    back = np.concatenate([*_halves(angles)[:1], -_halves(angles)[1]], axis=-1)
    of_angles = np.concatenate([a * da + b * db, a * db - b * da], axis=-1).sum(axis=1)
    return {"dx": rotary(dy, back), "dangles": of_angles}


def _halves(x: Array) -> tuple[Array, Array]:
    half = x.shape[-1] // 2
    return x[..., :half], x[..., half:]
