"""The size of one rounding error in each element of an op's results: what errors are counted in.

A result is a sum whose terms may cancel, so its own size does not tell how exactly it can be
computed; the sum of the sizes of its terms does (|error of a sum| <= c eps sum |terms|). Each
unit here is such a sum: eps of the storage type for what is stored in it, eps of float32 for what
is accumulated. An element whose unit is 0 can only be exactly 0.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from . import truth
from .truth import Array, Gradients

EPS = {"float32": 2.0**-23, "float16": 2.0**-10, "bfloat16": 2.0**-7}
_EPS32 = EPS["float32"]

# A probability below this may be flushed to zero by a float32 exponential.
_UNDERFLOW = 1e-30


def masked_attention(
    do: Array,
    q: Array,
    k: Array,
    v: Array,
    *,
    dtype: str,
    scale: float | None = None,
    segment_ids: Array | None = None,
    bias_k: Array | None = None,
    bias_v: Array | None = None,
) -> Gradients:
    """Units of o, dq, dk, dv and, with biases, dbias_k and dbias_v.

    An error of a score, or of the log-sum-exp kept for the backward pass, is a relative error of
    its probability: large scores and many keys count. The backward pass may compute rowsum(P dP)
    as rowsum(dO O) with O as it was stored.
    """
    eps, length = EPS[dtype], q.shape[2]
    t = truth.attention_terms(
        q, k, v, scale=scale, segment_ids=segment_ids, bias_k=bias_k, bias_v=bias_v
    )
    do = np.where(t.real, do, 0)
    abs_do, abs_q, abs_k, abs_v = np.abs(do), np.abs(t.q), np.abs(t.k), np.abs(t.v)
    abs_scale = abs(t.scale)

    s_size = abs_scale * (abs_q @ abs_k.swapaxes(2, 3))  # (B, H, L, M)
    lse_size = (t.p * s_size).sum(axis=3, keepdims=True)
    lse_size = lse_size + np.log1p(t.visible.sum(axis=3, keepdims=True))
    p_unit = t.p * (1 + s_size + lse_size)
    p_unit = np.where(t.visible, _EPS32 * p_unit + _UNDERFLOW, 0)
    o = t.p @ t.v
    o_unit = eps * np.abs(o) + p_unit @ abs_v

    dp = do @ t.v.swapaxes(2, 3)
    dp_unit = _EPS32 * (abs_do @ abs_v.swapaxes(2, 3))
    delta = (t.p * dp).sum(axis=3, keepdims=True)
    delta_unit = (abs_do * (o_unit + _EPS32 * np.abs(o))).sum(axis=3, keepdims=True)
    ds_size = t.p * np.abs(dp - delta)
    ds_unit = p_unit * np.abs(dp - delta) + t.p * (dp_unit + delta_unit) + _EPS32 * ds_size

    units = {"o": o_unit, "dq": abs_scale * (ds_unit @ abs_k)} | truth.split_bias_rows(
        abs_scale * (ds_unit.swapaxes(2, 3) @ abs_q),
        p_unit.swapaxes(2, 3) @ abs_do,
        length=length,
    )
    exact = truth.attention_gradients(do, t)
    return {name: unit + eps * np.abs(exact.get(name, 0)) for name, unit in units.items()}


def positional_embedding(
    dx: Array,
    tokens: Array,
    token_table: Array,
    position_table: Array,
    *,
    dtype: str,
    padding_idx: int,
    mask_idx: int | None = None,
    segment_ids: Array | None = None,
) -> Gradients:
    """Units of x, dtoken_table and dposition_table."""
    eps = EPS[dtype]
    options: dict[str, Any] = {
        "padding_idx": padding_idx,
        "mask_idx": mask_idx,
        "segment_ids": segment_ids,
    }
    tables = (tokens, token_table, position_table)
    t = truth.embedding_terms(*tables, **options)
    token_part = t.scales[..., None] * token_table[t.tokens]
    position_part = np.where(t.read[..., None], position_table[t.positions], 0)
    x_size = np.abs(token_part) + np.abs(position_part)
    exact = truth.positional_embedding_gradients(dx, *tables, **options)
    sizes = truth.positional_embedding_gradients(np.abs(dx), *tables, **options)
    units = {name: eps * np.abs(exact[name]) + _EPS32 * sizes[name] for name in exact}
    return units | {"x": eps * np.abs(token_part + position_part) + _EPS32 * x_size}


def linear(
    dy: Array,
    x: Array,
    weight: Array,
    bias: Array | None = None,
    *,
    dtype: str,
    activation: str | None = None,
) -> Gradients:
    """Units of y, dx, dweight and, with a bias, dbias.

    What the backward pass of GELU needs, z, may have been kept in the storage type, and the
    gradient before GELU may be rounded to it before it is multiplied.
    """
    eps = EPS[dtype]
    kept_eps = 0 if dtype == "float32" else eps
    z = x @ weight.T + (0 if bias is None else bias)
    z_unit = np.abs(x) @ np.abs(weight).T + (0 if bias is None else np.abs(bias))
    z_unit = _EPS32 * z_unit
    y, slope, y_unit, dz_unit = z, np.ones(z.shape), z_unit, np.zeros(z.shape)
    if activation == "gelu":
        cdf, density = truth.normal_cdf(z), truth.normal_density(z)
        y, slope = z * cdf, cdf + z * density
        # 1 + erf(z) cancels for negative z: an error of eps there whatever the result.
        y_unit = np.abs(slope) * z_unit + _EPS32 * np.abs(z)
        curvature = np.abs((2 - z * z) * density)
        kept_z_unit = z_unit + kept_eps * np.abs(z)
        dz_unit = np.abs(dy) * (curvature * kept_z_unit + _EPS32 * (1 + np.abs(z) * density))
        dz_unit = dz_unit + kept_eps * np.abs(dy * slope)
    dz_unit = dz_unit + _EPS32 * np.abs(dy * slope)
    exact = truth.linear_gradients(dy, x, weight, bias, activation=activation)
    units = truth.linear_gradients(dz_unit, np.abs(x), np.abs(weight), bias)
    units = {name: unit + eps * np.abs(exact[name]) for name, unit in units.items()}
    return units | {"y": eps * np.abs(y) + y_unit}


def int8_linear(
    x: Array,
    weight: Array,
    scale: Array,
    bias: Array | None = None,
    *,
    dtype: str,
    activation: str | None = None,
    residual: Array | None = None,
) -> Gradients:
    """Units of y.

    The sums are whole numbers: an error comes from their conversion and from what follows alone,
    however many terms there are.
    """
    product = truth.int8_linear(x, weight, scale)
    z = product + (0 if bias is None else bias)
    z_unit = _EPS32 * (np.abs(product) + (0 if bias is None else np.abs(bias)))
    y, y_unit = z, z_unit
    if activation == "gelu":
        cdf, density = truth.normal_cdf(z), truth.normal_density(z)
        y, y_unit = z * cdf, np.abs(cdf + z * density) * z_unit + _EPS32 * np.abs(z)
    if residual is not None:
        y, y_unit = y + residual, y_unit + _EPS32 * np.abs(residual)
    return {"y": EPS[dtype] * np.abs(y) + y_unit}


def layer_norm(
    dy: Array, s: Array, weight: Array, bias: Array, *, dtype: str, eps: float, rounds_s: bool
) -> Gradients:
    """Units of y, ds, dweight and dbias; rounds_s: s itself is rounded to the storage type."""
    unit_eps = EPS[dtype]

    def mean(x: Array) -> Array:
        return np.asarray(x.mean(axis=-1, keepdims=True))

    ones = np.ones(weight.shape)
    n = truth.layer_norm(s, ones, 0 * ones, eps=eps)
    r = 1 / np.sqrt(s.var(axis=-1, keepdims=True) + eps)
    # An error of s moves n by itself, by the mean and by the variance.
    s_unit = (unit_eps if rounds_s else _EPS32) * np.abs(s)
    spread = r * mean(np.abs(n) * (s_unit + _EPS32 * mean(np.abs(s))))
    n_unit = r * (s_unit + mean(s_unit)) + np.abs(n) * (spread + _EPS32)
    y = n * weight + bias
    units = {"y": unit_eps * np.abs(y) + n_unit * np.abs(weight) + _EPS32 * np.abs(bias)}

    g = np.abs(dy * weight)
    size = r * (g + mean(g) + np.abs(n) * mean(g * np.abs(n)))
    by_n = r * (n_unit * mean(g * np.abs(n)) + np.abs(n) * mean(g * n_unit))
    exact = truth.layer_norm_gradients(dy, s, weight, eps=eps)
    units["ds"] = (_EPS32 + spread) * size + by_n
    rows = tuple(range(s.ndim - 1))
    dy = np.abs(dy)
    units["dweight"] = (dy * (n_unit + _EPS32 * np.abs(n))).sum(axis=rows)
    units["dbias"] = _EPS32 * dy.sum(axis=rows)
    return units | {name: units[name] + unit_eps * np.abs(exact[name]) for name in exact}


def rotary(dy: Array, x: Array, angles: Array, *, dtype: str) -> Gradients:
    """Units of y, dx and dangles, which is added up and kept in float32."""
    exact = {"y": truth.rotary(x, angles)} | truth.rotary_gradients(dy, x, angles)
    half = angles.shape[-1] // 2
    # Signs with which no two terms cancel.
    sizes = [np.abs(a) for a in (x, dy, angles)]
    flipped = [np.concatenate([a[..., :half], -a[..., half:]], axis=-1) for a in sizes]

    def size(x: Array, flipped: Array, angles: Array) -> Array:
        terms = truth.rotary(flipped, angles)[..., :half], truth.rotary(x, angles)[..., half:]
        return np.concatenate(terms, axis=-1)

    units = {
        name: EPS[dtype] * np.abs(exact[name]) + _EPS32 * size(sizes[i], flipped[i], sizes[2])
        for i, name in enumerate(("y", "dx"))
    }
    of_cosines = truth.rotary_gradients(sizes[1], sizes[0], sizes[2])["dangles"][..., :half]
    of_sines = truth.rotary_gradients(sizes[1], flipped[0], sizes[2])["dangles"][..., half:]
    return units | {"dangles": _EPS32 * np.concatenate([of_cosines, of_sines], axis=-1)}
