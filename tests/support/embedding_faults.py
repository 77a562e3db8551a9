"""Faults to plant in the kernels of positional_embedding, for test_mutations.py."""

from __future__ import annotations

from problems import EmbeddingProblem

PLACES, ROWS = "positional_embedding_places", "positional_embedding_fwd"
TOKENS, SUM = "positional_embedding_bwd_tokens", "positional_embedding_bwd_sum"
POSITIONS = "positional_embedding_bwd_positions"

# Some of them must come out wrong where a fault is planted.
PROBLEMS = (
    EmbeddingProblem((1, 9, 200)),
    EmbeddingProblem((40, 9, 5), segments="runs"),
    EmbeddingProblem((2, 300, 20), segments="runs", mask_idx=32, padding_rate=0.1, poisoned=True),
    EmbeddingProblem((1, 1100, 6), vocabulary=50, segments="interleaved", mask_idx=None),
)

# kernel, what stands there, what stands there instead; every occurrence in the kernel's source.
SOURCES = (
    (PLACES, "first + i <= l", "first + i < l"),
    (PLACES, "other_token == p.mask_idx", "other_token != p.mask_idx"),
    (PLACES, "if (token == padding_idx) {", "if (false) {"),
    (PLACES, "threadgroup_barrier(mem_flags::mem_threadgroup);  // the last tile is", "//"),
    (PLACES, "int count = min(kPlaceTokens, p.L - first)", "int count = kPlaceTokens - 1"),
    (ROWS, "column += 4 * kLanesOfSimdgroup", "column += 256"),
    (ROWS, "column + i < p.C", "column + i <= p.C"),
    (
        TOKENS,
        "const int count = int(min(int64_t(kTokenRows), end - first));",
        "const int count = 64;",
    ),
    (TOKENS, "group.y) * kTokens", "group.y) * 8"),
    (TOKENS, "(begin + thread_index) % p.L", "thread_index % p.L"),
    (TOKENS, "walk(own, kTokenRows, p.L);", ""),
    (SUM, "i < p.chunks; ++i", "i < 1; ++i"),
    (POSITIONS, "found &= found - 1u;", "found = 0u;"),
    (POSITIONS, "if (first + thread_index < rows) {", "if (true) {"),
    (POSITIONS, "walk(own, PLACES, p.L);", "walk(own, kTokenRows, p.L);"),
    (POSITIONS, "row.l %= uint(L);", "row.l = uint(int64_t(row.l) % L);"),
    (
        POSITIONS,
        "int place = kPaddingPosition;\n    if (first + thread_index < rows) {\n"
        "      place = lookups[first + thread_index].position;\n    }",
        "const int64_t at = first + thread_index;\n"
        "    const int place = at < rows ? lookups[at].position : kPaddingPosition;",
    ),
    (POSITIONS, "row.b += int(row.l / uint(L));", "row.b += row.l < uint(L) ? 0 : 1;"),
)

# kernel, what stands there, what stands instead, along which axis rows lie far apart.
NARROW_OFFSETS = (
    (ROWS, "int64_t(lookup.token) * p.token_row", "int(lookup.token * p.token_row)", "l"),
    (ROWS, "int64_t(column + i) * stride", "int((column + i) * stride)", "c"),
    (TOKENS, "c * p.dout_c", "int(c * p.dout_c)", "c"),
    (TOKENS, "threadgroup int64_t staged_at", "threadgroup int staged_at", "l"),
    (POSITIONS, "row.b * p.dout_b", "int(row.b * p.dout_b)", "b"),
)
