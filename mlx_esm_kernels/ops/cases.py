"""The cases in which our Metal kernels' ops are judged on a device: small, odd and nasty.

Every number is exact in float32, float16 and bfloat16, so that one truth, kept for the process,
serves them all. Padding holds NaN.
"""

from __future__ import annotations

import functools
import itertools
from collections.abc import Callable, Iterator
from typing import Any

import mlx.core as mx
import numpy as np

from .. import _ext
from . import rounding, truth
from .judging import Case
from .truth import Array

Answers = tuple[dict[str, Array], Callable[[str], dict[str, Array]]]  # truth, and units of a dtype

BATCH, HEADS, LENGTH = 2, 2, 77  # with 64 rows a threadgroup, two threadgroups and an odd tail
# More columns than a word of the block map has, 1,024, and more rows than a part of the embedding's
# token gradient has, as many; 17 threadgroups of 64 rows, and 12 rows. A quarter of it is more than
# the embedding counts at once, 256.
LONG = 1100
VOCABULARY, PADDING, MASK = 33, 1, 32
POSITIONS = 90
WIDTH, ODD_WIDTH = 264, 135  # of tables that are read by vectors, and that are not
# Times log2(e) it is 2^-3 in float32, so that scores of whole numbers are exact in any order.
_EXACT_SCALE = float(np.float32(np.log(2.0))) / 8

_KINDS = ((True, False), (False, True), (False, True))


def normal(rng: np.random.Generator, *shape: int) -> Array:
    """Normal numbers of eight bits: multiples of 1/32 up to 4."""
    return np.clip(np.round(32 * rng.standard_normal(shape)), -128, 128) / 32


def _poisoned(x: Array, padding: Array) -> Array:
    return np.where(padding, np.nan, x)


def _segments() -> Array:
    """(BATCH, LENGTH) ids: two proteins and a tail of padding; one protein with holes."""
    ids = np.zeros((BATCH, LENGTH), np.int32)
    ids[0, :31], ids[0, 31:70] = 1, 2
    ids[1] = np.arange(LENGTH) % 13 != 5
    return ids


# ---- Attention ----------------------------------------------------------------------------------


@functools.lru_cache(maxsize=2)
def attention_cases(head_dim: int) -> tuple[Case, ...]:
    """Those of masked_attention at this D, with their truth."""
    scores = (_large_scores(head_dim), _huge_scores(head_dim))
    kinds = (*_all_kinds(head_dim), _far_apart(head_dim), *scores)
    return (*kinds, _infinite_neighbour(head_dim))


def _all_kinds(head_dim: int) -> Iterator[Case]:
    """With and without segments, the extra key, and rows that are read by vectors."""
    rng = np.random.default_rng(0)
    dense = [normal(rng, BATCH, HEADS, LENGTH, head_dim) for _ in range(4)]
    biases = [normal(rng, HEADS, head_dim) for _ in range(2)]
    ids = _segments()
    padded = [_poisoned(x, (ids == 0)[:, None, :, None]) for x in dense]
    for has_segments, has_bias, strided in itertools.product(*_KINDS):
        words = ["packed" if has_segments else "dense"]
        words += ["extra key"] * has_bias + ["strided"] * strided
        yield _attention(
            " ".join(words),
            padded if has_segments else dense,
            ids=ids if has_segments else None,
            biases=biases if has_bias else [],
            scale=0.5 if strided else None,
            strided=strided,
        )
    yield _attention("in parts", padded, ids=ids, biases=biases, in_parts=True)


def _far_apart(head_dim: int) -> Case:
    """A protein that begins and ends L = 1,100 positions apart, one behind it, padding between."""
    rng = np.random.default_rng(1)
    ids = np.zeros((1, LONG), np.int32)
    ids[0, :64], ids[0, 1024:1056], ids[0, 1056:] = 1, 1, 2
    arrays = [normal(rng, 1, 1, LONG, head_dim) for _ in range(4)]
    padded = [_poisoned(x, (ids == 0)[:, None, :, None]) for x in arrays]
    (real,) = np.nonzero(ids[0])
    inner = _attention("", [x[:, :, real] for x in arrays], ids=ids[:, real])

    def spread(found: dict[str, Array]) -> dict[str, Array]:
        wide = {name: np.zeros((1, 1, LONG, head_dim)) for name in found}
        for name, x in found.items():
            wide[name][:, :, real] = x
        return wide

    return _attention(
        "long",
        padded,
        ids=ids,
        known=(spread(inner.true), lambda dtype: spread(inner.units(dtype))),
    )


def _large_scores(head_dim: int) -> Case:
    """Scores far below 0, equal within a row, and far above it, with one key that has it all.

    All of it is exact: numbers are whole, and a sum of weights is a power of two.
    """
    rng = np.random.default_rng(2)
    shape = (2, 1, LENGTH, head_dim)
    ids = np.zeros((2, LENGTH), np.int32)
    ids[:, 5:37], ids[:, 37:69] = 1, 2
    keys = np.empty((2, 1, LENGTH, 1))
    keys[0], keys[1, 0, :, 0] = -128, 37 * np.arange(LENGTH) % 64 + 1
    q, k = rng.integers(128, 256, shape).astype(float), np.broadcast_to(keys, shape)
    v, do = (rng.integers(-1, 2, shape).astype(float) for _ in range(2))
    padded = [_poisoned(x, (ids == 0)[:, None, :, None]) for x in (q, k, v, do)]
    return _attention("large scores", padded, ids=ids, scale=_EXACT_SCALE)


def _huge_scores(head_dim: int) -> Case:
    """Scores of up to 1e36, below 0 and above it, of which one key of a row has it all.

    No other weight is above 0, so that o and dv are those of scores a power of two smaller. The
    gradients of the scores, 0 times what is huge, may be anything.
    """
    rng = np.random.default_rng(4)
    shape = (2, 1, LENGTH, head_dim)
    ids = _segments()
    keys = np.empty((2, 1, LENGTH, 1))
    keys[0, 0, :, 0] = 37 * np.arange(LENGTH) % 128 + 1
    keys[1] = keys[0] - 129
    q, k = rng.integers(128, 256, shape).astype(float), np.broadcast_to(keys, shape)
    v, do = (rng.integers(-1, 2, shape).astype(float) for _ in range(2))
    padded = [_poisoned(x, (ids == 0)[:, None, :, None]) for x in (q, k, v, do)]
    smaller = _attention("", padded, ids=ids, scale=_EXACT_SCALE)

    def units(dtype: str) -> dict[str, Array]:
        return smaller.units(dtype) | {name: np.full(shape, np.inf) for name in ("dq", "dk")}

    known, huge = (smaller.true, units), _EXACT_SCALE * 2.0**100
    return _attention("huge scores", padded, ids=ids, scale=huge, known=known)


def _infinite_neighbour(head_dim: int) -> Case:
    """A protein with a token of infinities, packed beside one that must know nothing of it."""
    rng = np.random.default_rng(3)
    ids = np.zeros((2, LENGTH), np.int32)
    ids[:, :31], ids[:, 31:70] = 1, 2
    infinite = ids == [[1], [2]]  # of the first row the first protein, of the second the second
    arrays = [normal(rng, 2, 1, LENGTH, head_dim) for _ in range(4)]
    clean = _attention("", arrays, ids=ids)
    padded = [_poisoned(x, (ids == 0)[:, None, :, None]) for x in arrays]
    for x in padded:
        x[0, :, 12], x[1, :, 50] = np.inf, -np.inf

    def units(dtype: str) -> dict[str, Array]:
        anything = infinite[:, None, :, None]
        return {name: np.where(anything, np.inf, x) for name, x in clean.units(dtype).items()}

    return _attention("infinite neighbour", padded, ids=ids, known=(clean.true, units))


def _attention(
    name: str,
    arrays: list[Array],
    *,
    ids: Array | None = None,
    biases: list[Array] | None = None,
    scale: float | None = None,
    strided: bool = False,
    in_parts: bool = False,
    known: Answers | None = None,
) -> Case:
    """A case of q, k, v and do; known: its truth and units where they are at hand."""
    q, k, v, do = arrays
    bias_k, bias_v = biases or (None, None)
    given: dict[str, Any] = {"scale": scale, "segment_ids": ids}
    exact = given | {"bias_k": bias_k, "bias_v": bias_v}

    def call(*x: mx.array, stream: Any) -> mx.array:
        options = given | {"segment_ids": None if ids is None else mx.array(ids)}
        options |= dict(zip(("bias_k", "bias_v"), x[3:], strict=False))
        return _ext.masked_attention(*x[:3], **options, fused=True, stream=stream)

    @functools.cache
    def units(dtype: str) -> dict[str, Array]:
        return rounding.masked_attention(do, q, k, v, dtype=dtype, **exact)

    if known is None:
        true = {"o": truth.masked_attention(q, k, v, **exact)}
        known = true | truth.masked_attention_gradients(do, q, k, v, **exact), units
    inputs = (q, k, v, *(biases or ()))
    return Case(name, tuple(known[0]), inputs, do, call, *known, strided, in_parts)


# ---- Embedding ----------------------------------------------------------------------------------


@functools.lru_cache(maxsize=1)
def embedding_cases() -> tuple[Case, ...]:
    """Those of positional_embedding, with their truth."""
    return (*_all_embeddings(), _many_rows((4, LONG // 4)), _many_rows((40, 9)), _outside())


def _tokens(rng: np.random.Generator, shape: tuple[int, int]) -> Array:
    """(B, L) int64: residues, a fifth of them masked, and some padding among them."""
    tokens = rng.integers(4, MASK, shape)
    tokens[rng.random(shape) < 0.2] = MASK
    tokens[rng.random(shape) < 0.05] = PADDING
    return tokens


def _all_embeddings() -> Iterator[Case]:
    """With and without segments, token dropout, and rows that are read by vectors."""
    rng = np.random.default_rng(0)
    ids = _segments()
    tokens = _tokens(rng, ids.shape)
    tables = [normal(rng, n, WIDTH) for n in (VOCABULARY, POSITIONS)]
    dx = normal(rng, *ids.shape, WIDTH)
    for has_segments, dropout, odd in itertools.product(*_KINDS):
        words = ["packed" if has_segments else "plain"]
        words += ["dropout"] * dropout + ["odd"] * odd
        width = ODD_WIDTH if odd else WIDTH
        yield _embedding(
            " ".join(words),
            tokens,
            [table[:, :width] for table in tables],
            dx[..., :width],
            mask_idx=MASK if dropout else None,
            segment_ids=ids if has_segments else None,
            strided=odd and has_segments,
        )


def _many_rows(shape: tuple[int, int]) -> Case:
    """More tokens than are counted or added up at once, in rows that are long or very short, of
    more kinds than an alphabet has."""
    rng = np.random.default_rng(1)
    tokens = rng.integers(4, 50, shape)
    ids = np.arange(tokens.size).reshape(shape) % 3
    tables = [normal(rng, 50, 6), normal(rng, 200, 6)]
    dx = normal(rng, *shape, 6)
    name = "long" if shape[1] > LENGTH else "short"
    return _embedding(name, tokens, tables, dx, mask_idx=MASK, segment_ids=ids)


def _outside() -> Case:
    """Tokens that are in no table, segments longer than the position table, and others."""
    rng = np.random.default_rng(2)
    ids = _segments()
    tokens = _tokens(rng, ids.shape)
    tokens[:, 3:25:4] = np.resize([-1, VOCABULARY, 2**32 + 5], 6)
    tables = [normal(rng, n, 12) for n in (VOCABULARY, 25)]
    dx = normal(rng, *ids.shape, 12)
    return _embedding("outside", tokens, tables, dx, segment_ids=ids, hidden=True)


def _embedding(
    name: str,
    tokens: Array,
    tables: list[Array],
    dx: Array,
    *,
    mask_idx: int | None = None,
    segment_ids: Array | None = None,
    hidden: bool = False,
    strided: bool = False,
) -> Case:
    """A case of these tables; hidden: the op's check at the call sees no tokens."""
    fixed: dict[str, Any] = {"padding_idx": PADDING, "mask_idx": mask_idx}
    exact = fixed | {"segment_ids": segment_ids}
    true = {"x": truth.positional_embedding(tokens, *tables, **exact)}
    terms = truth.embedding_terms(tokens, *tables, **exact)
    dx = _poisoned(dx, ~(terms.read | terms.outside)[..., None])
    true |= truth.positional_embedding_gradients(dx, tokens, *tables, **exact)

    def call(*x: mx.array, stream: Any) -> mx.array:
        def of(tokens: mx.array, segment_ids: mx.array | None = None) -> mx.array:
            return _ext.positional_embedding(
                tokens, *x, **fixed, segment_ids=segment_ids, fused=True, stream=stream
            )

        rows = [mx.array(y) for y in (tokens, segment_ids) if y is not None]
        if not hidden:
            return of(*rows)
        found: mx.array = mx.vmap(lambda *row: of(*(y[None] for y in row))[0])(*rows)
        return found

    @functools.cache
    def units(dtype: str) -> dict[str, Array]:
        clean = np.where(terms.read[..., None], dx, 0)
        return rounding.positional_embedding(clean, tokens, *tables, dtype=dtype, **exact)

    return Case(name, tuple(true), tuple(tables), dx, call, true, units, strided)


# ---- Rotary -------------------------------------------------------------------------------------


@functools.lru_cache(maxsize=1)
def rotary_cases() -> tuple[Case, ...]:
    """Those of rotary: read by vectors and not, strided, and with heads that are no numbers."""
    return (
        _rotary("whole", (BATCH, 3, LENGTH, 16)),
        _rotary("wide", (1, 2, 9, 136)),
        _rotary("odd", (BATCH, 3, LENGTH, 18)),
        _rotary("odd vectors", (BATCH, 2, LENGTH, 12)),
        _rotary("strided", (BATCH, 2, LENGTH, 16), strided=True),
        _rotary("poisoned", (BATCH, 3, LENGTH, 24), poisoned=True),
    )


def _rotary(
    name: str, shape: tuple[int, int, int, int], strided: bool = False, poisoned: bool = False
) -> Case:
    """poisoned: some heads of some tokens are NaN, of which their neighbours must know nothing."""
    rng = np.random.default_rng(0)
    batch, _, length, dim = shape
    x, dy, angles = normal(rng, *shape), normal(rng, *shape), normal(rng, batch, length, dim)
    true = {"y": truth.rotary(x, angles)} | truth.rotary_gradients(dy, x, angles)
    bad = np.zeros(shape, bool)
    if poisoned:
        bad[:, 1, 3::7] = True

    def call(*given: mx.array, stream: Any) -> mx.array:
        return _ext.rotary(given[0], given[1].astype(mx.float32), fused=True, stream=stream)

    @functools.cache
    def units(dtype: str) -> dict[str, Array]:
        found = rounding.rotary(dy, x, angles, dtype=dtype)
        found["dangles"] = found["dangles"] + rounding.EPS[dtype] * np.abs(true["dangles"])
        # The gradient of angles is made from MLX's own ops: of a head that is no number it is none.
        free = {"y": bad, "dx": bad, "dangles": bad.max(axis=(1, 3), keepdims=True)[:, 0]}
        return {key: np.where(free[key], np.inf, unit) for key, unit in found.items()}

    inputs, cotangent = (_poisoned(x, bad), angles), _poisoned(dy, bad)
    return Case(name, tuple(true), inputs, cotangent, call, true, units, strided)
