"""Faults to plant in the kernels of positional_embedding, for test_mutations.py."""

from __future__ import annotations

import mlx.core as mx
import numpy as np
from outside_problem import OutsideProblem
from problems import EmbeddingProblem

PLACES, ROWS = "positional_embedding_places", "positional_embedding_fwd"
TOKENS, SUM = "positional_embedding_bwd_tokens", "positional_embedding_bwd_sum"
POSITIONS = "positional_embedding_bwd_positions"


def _of_runs(problem: EmbeddingProblem, *runs: tuple[int, int]) -> EmbeddingProblem:
    """The problem with segments of (id, length), side by side."""
    ids = np.concatenate([np.full(length, id, np.int64) for id, length in runs])
    return problem.with_arrays(segment_ids=mx.array(ids[None]))


# Some of them must come out wrong where a fault is planted.
PROBLEMS = (
    EmbeddingProblem((1, 9, 200)),
    EmbeddingProblem((40, 9, 5), segments="runs"),
    EmbeddingProblem((2, 300, 20), segments="runs", mask_idx=32, padding_rate=0.1, poisoned=True),
    EmbeddingProblem((1, 1100, 6), vocabulary=50, segments="interleaved", mask_idx=None),
    _of_runs(
        EmbeddingProblem((1, 700, 4), segments="one", mask_idx=32, padding_rate=0.1, positions=702),
        *((-3, 50), (2**32, 300), (2**32 + 1, 70), (2**33 + 1, 100), (2**33, 80), (-3, 100)),
    ),
    OutsideProblem((2, 90, 12), segments="tail_padding", positions=29),
    OutsideProblem((1, 300, 12), segments="runs", positions=9),
)

_SYNC = "threadgroup_barrier(mem_flags::mem_threadgroup);"

# kernel, what stands there, what stands there instead; every occurrence in the kernel's source.
SOURCES = (
    # Barriers.
    (PLACES, _SYNC + "  // the last tile is", "//"),
    (PLACES, _SYNC + "\n    for (int i = 0; i < kPlaceBlocks", "for (int i = 0; i < kPlaceBlocks"),
    (TOKENS, _SYNC + "  // the last rows are", "//"),
    (TOKENS, _SYNC + "\n    const int count", "const int count"),
    (POSITIONS, _SYNC + "  // the last rows are", "//"),
    (POSITIONS, _SYNC + "\n    for (int i = 0", "for (int i = 0"),
    # Places: blocks of tokens.
    (PLACES, "if (token == padding_idx) {", "if (false) {"),
    (PLACES, "if (other < p.L) {", "if (true) {"),
    (PLACES, "if (exists) {", "if (true) {"),
    (PLACES, "if (!exists) {", "if (false) {"),
    (PLACES, "block.highest < own.lowest ||", "block.highest <= own.lowest ||"),
    (PLACES, "own.highest < block.lowest)", "own.highest <= block.lowest)"),
    (PLACES, "block.lowest == block.highest &&", "true &&"),
    (PLACES, "&& begin != own_begin) {", ") {"),
    (PLACES, "if (block.lowest == id) {", "if (true) {"),
    (PLACES, "counts.all += block.tokens;", ""),
    (PLACES, "counts.masked += block.masked;", ""),
    (PLACES, "begin < own_begin ?", "begin > own_begin ?"),
    (PLACES, "begin + i <= l", "begin + i < l"),
    (PLACES, "i < kLanesOfSimdgroup; ++i", "i < kLanesOfSimdgroup - 1; ++i"),
    (PLACES, "i < kPlaceBlocks; ++i", "i < kPlaceBlocks - 1; ++i"),
    (PLACES, "if (lane == 0u) {", "if (true) {"),
    (PLACES, "simd_min(int(x >> 32))", "0"),
    (PLACES, "simd_min(uint(x))", "simd_max(uint(x))"),
    (PLACES, "~bound_below(counts ? ~id", "bound_below(counts ? id"),
    (PLACES, "simd_sum(counts ? 1 : 0)", "simd_sum(1)"),
    (PLACES, "simd_sum(counts ? masked : 0)", "simd_sum(counts ? 1 - masked : 0)"),
    (PLACES, "other_token == p.mask_idx", "other_token != p.mask_idx"),
    # Places: what is in no table.
    (PLACES, "position < long(p.positions)", "true"),
    (PLACES, "position < long(p.positions)", "position <= long(p.positions)"),
    (PLACES, "token < long(p.vocab)", "true"),
    (PLACES, "token >= 0l", "true"),
    (PLACES, "lookup.position = kOutsidePosition;", "lookup.position = kPaddingPosition;"),
    (ROWS, "lookup.position == kOutsidePosition", "lookup.position == kPaddingPosition"),
    (ROWS, "lookup.position == kOutsidePosition", "lookup.position != 0"),
    (TOKENS, "lookup.position >= 0 && ", ""),
    (POSITIONS, "if (position < p.positions) {", "if (position <= p.positions) {"),
    # Rows and tiles.
    (ROWS, "column += 4 * kLanesOfSimdgroup", "column += 256"),
    (ROWS, "column + i < p.C", "column + i <= p.C"),
    (ROWS, "if (at >= p.rows) {", "if (at > p.rows) {"),
    (
        TOKENS,
        "const int count = int(min(int64_t(kTokenRows), end - first));",
        "const int count = 64;",
    ),
    (TOKENS, "group.y) * kTokens", "group.y) * 8"),
    (TOKENS, "if (first + thread_index < end) {", "if (true) {"),
    (TOKENS, "(begin + thread_index) % p.L", "thread_index % p.L"),
    (TOKENS, "walk(own, kTokenRows, p.L);", ""),
    (SUM, "i < p.chunks; ++i", "i < 1; ++i"),
    (SUM, "if (at >= size) {", "if (at > size) {"),
    (POSITIONS, "found &= found - 1u;", "found = 0u;"),
    (POSITIONS, "if (first + thread_index < rows) {", "if (true) {"),
    (POSITIONS, "walk(own, PLACES, p.L);", "walk(own, kTokenRows, p.L);"),
    (POSITIONS, "row.b += int(row.l / uint(L));", "row.b += row.l < uint(L) ? 0 : 1;"),
    # What the compiler must refuse.
    (POSITIONS, "row.l %= uint(L);", "row.l = uint(int64_t(row.l) % L);"),
    (
        POSITIONS,
        "int place = kPaddingPosition;\n    if (first + thread_index < rows) {\n"
        "      place = lookups[first + thread_index].position;\n    }",
        "const int64_t at = first + thread_index;\n"
        "    const int place = at < rows ? lookups[at].position : kPaddingPosition;",
    ),
)

# kernel, what stands there, what stands instead, along which axis rows lie far apart.
NARROW_OFFSETS = (
    (ROWS, "int64_t(lookup.token) * p.token_row", "int(lookup.token * p.token_row)", "l"),
    (ROWS, "int64_t(column + i) * stride", "int((column + i) * stride)", "c"),
    (TOKENS, "c * p.dout_c", "int(c * p.dout_c)", "c"),
    (TOKENS, "threadgroup int64_t staged_at", "threadgroup int staged_at", "l"),
    (POSITIONS, "threadgroup int64_t places_at", "threadgroup int places_at", "l"),
    (POSITIONS, "row.b * p.dout_b", "int(row.b * p.dout_b)", "b"),
)
