"""Faults to be planted in the Metal kernels of attention, one at a time, as plain text.

Each has a kernel, what stands in its source, and what is to stand there instead, at every
occurrence; a narrow offset has the axis along which rows lie far apart as well.
"""

from __future__ import annotations

FWD, DQ, DKV = "masked_attention_fwd", "masked_attention_bwd_dq", "masked_attention_bwd_dkv"
MAP, BIAS = "masked_attention_map", "masked_attention_bwd_bias"

_BARRIER = "threadgroup_barrier(mem_flags::mem_threadgroup);"

ATTENTION_SOURCES: tuple[tuple[str, str, str], ...] = (
    # Barriers, and what is staged between them.
    (FWD, f"{_BARRIER}  // the last tile's values", "//"),
    (FWD, f"{_BARRIER}  // the keys are used", ""),
    (FWD, f"      {_BARRIER}\n    }}\n", "    }\n"),
    (FWD, f"{_BARRIER}\n    score", "score"),
    (FWD, f"{_BARRIER}\n    if (walk.partial) {{\n      add", "if (walk.partial) {\n      add"),
    (DQ, f"{_BARRIER}  // the last tile", "//"),
    (DQ, f"{_BARRIER}\n#pragma unroll\n    for (int j", "#pragma unroll\n    for (int j"),
    (DKV, f"{_BARRIER}\n#pragma unroll\n    for (int j", "#pragma unroll\n    for (int j"),
    (DKV, f"{_BARRIER}  // the last tile", "//"),
    (MAP, f"{_BARRIER}\n", "\n"),
    (BIAS, f"{_BARRIER}  // the sums", "//"),
    (FWD, "stage_ids(own_ids, ids, first_row, ROWS", "stage_ids(own_ids, ids, first_row, ROWS - 1"),
    (DQ, "stage_ids(own_ids, ids, first_row,", "stage_ids(own_ids, ids, 0,"),
    (DKV, "own_ids + own, row", "own_ids, row"),
    # Bounds and padding.
    (FWD, "if (l >= L) {", "if (l > L) {"),
    (FWD, "if (!partial || ids[row] != 0l) {", "if (true) {"),
    (DKV, "if (!partial || ids[row] != 0l) {", "if (true) {"),
    (DQ, "if (id == 0l) {\n    return Element2", "if (false) {\n    return Element2"),
    (DQ, "walk.end = min(walk.first + kBlock, L);", "walk.end = walk.first + kBlock - TILE;"),
    (DQ, "if (x[m].id != 0l) {\n", "if (true) {\n"),
    (DKV, "    if (l < L) {\n      row_lse", "    {\n      row_lse"),
    (DKV, "row_delta = delta[l];", ""),
    # The walk and the mask.
    (FWD, "walk.partial = (walk.blocks.full >> bit & 1u) == 0u;", "walk.partial = false;"),
    (DKV, "    weight = select_same(weight, tile.ids, query, x.id);", ";"),
    (DKV, "    dscore = select_same(dscore, tile.ids, query, x.id);", ";"),
    (DQ, "partial ? select_same(dscore, ids, column, x.id) : dscore", "dscore"),
    (FWD, "weights = select_same(weights, ids, j * 8 + column, x.id);", ";"),
    (FWD, "if (!partial || ids[j * 8 + column] == x.id) {", "if (false) {"),
    (FWD, "ids[column + 1] == id ? x.y", "ids[column] == id ? x.y"),
    # Runs of a segment among the own rows.
    (FWD, "own_ids[r] != own_ids[r - 1] ?", "false ?"),
    (DKV, "own_ids[r] != own_ids[r - 1] ?", "r == 4 ?"),
    (DKV, "runs.end <= first ||", "runs.end <= first + 1 ||"),
    (DQ, "runs.starts == 0u ? SIMDGROUP_ROWS", "runs.starts == 0u ? SIMDGROUP_ROWS - 1"),
    (DQ, "runs.starts &= runs.starts - 1u;", "runs.starts = 0u;"),
    (FWD, "first + row >= runs.first && first + row < runs.end ? sum : c", "sum"),
    (DQ, "first + row < runs.end ? sum : c", "true ? sum : c"),
    (
        DKV,
        "return same ? load_fragment(at, stride, row, column) : float2(0.0f);",
        "return load_fragment(at, stride, row, column);",
    ),
    (FWD, "runs, m * 8, row)", "runs, 0, row)"),
    (DQ, "const bool same = ids[row]", "const bool same = ids[column]"),
    (DKV, "const bool same = tile.ids[first + row]", "const bool same = tile.ids[row]"),
    # Sums, scales and the running maximum.
    (FWD, "x.total *= rescale;", ";"),
    (FWD, "x.sum[f] *= rescale;", ";"),
    (FWD, "x.total = column == 0 ? 1.0f : 0.0f;", "x.total = 1.0f;"),
    (FWD, "largest = row_max(largest);", ";"),
    (FWD, "x[m].largest + log2(total)", "x[m].largest"),
    (FWD, "x.largest = -FLT_MAX;", "x.largest = -1e4f;"),
    (FWD, "max(x.largest - largest, -200.0f)", "x.largest - largest"),
    (FWD, "x[m].weights[j] *= scale;", ";"),
    (FWD, "x.largest = row_sum(score) * scale;", "x.largest = row_sum(score);"),
    (FWD, "from[2 * stride]", "from[stride]"),
    (FWD, "int64_t(first + row) * row_stride", "int64_t(first + row) * HEAD_DIM"),
    (FWD, "lane / 4 & 4", "lane / 4 & 2"),
    (FWD, "own + m * 8 + row", "own + row"),
    (DQ, "own + m * 8 + row", "own + m * 4 + row"),
    (DQ, "simd_shuffle_xor(x, ushort(8))", "simd_shuffle_xor(x, ushort(4))"),
    (DQ, "simd_shuffle_xor(x, ushort(16))", "simd_shuffle_xor(x, ushort(1))"),
    (DQ, "x[m].dq[f] * p.scale", "x[m].dq[f]"),
    (DQ, "s * scale - x.lse", "s - x.lse"),
    (DQ, "row_sum(score) * (scale * LOG2E)", "row_sum(score) * scale"),
    (DQ, "(dweight - x.delta)", "dweight"),
    (DQ, "dscore * scale * float2(x.q[f])", "dscore * float2(x.q[f])"),
    (DQ, "if (row == 0) {", "if (true) {"),
    (DQ, "own / kFragment + m;", "own / kFragment;"),
    (DKV, "s * scale - lse", "s - lse"),
    (DKV, "x[m].dk[f] * p.scale", "x[m].dk[f]"),
    (DKV, "load_transposed(tile.dout + at", "load_fragment(tile.dout + at"),
    (DKV, "keys + m * 8 * STAGED + f * 8", "keys + f * 8 + 8"),
    # The parts of a split launch.
    (FWD, "int(group.y) + p.first.y", "int(group.y)"),
    (FWD, "int(group.x) + p.first.x", "int(group.x)"),
    (DQ, "int(group.x) + p.first.x", "int(group.x)"),
    (DQ, "int64_t(p.groups) * (ROWS", "int64_t(1) * (ROWS"),
    (DKV, "int(group.z) + p.first.z", "int(group.z)"),
    # The block map and the last sum of the bias gradients.
    (MAP, "c < kBlock; ++c", "c < kBlock - 1; ++c"),
    (MAP, "full = full && same", "full = full || same"),
    (MAP, "(int(group.x) * kBlocksOfWord + int(lane)) * kBlock", "int(lane) * kBlock"),
    (MAP, "lane == 0u && block < blocks", "lane == 0u"),
    (MAP, "row_ids + int(simdgroup_index) * kBlock", "row_ids"),
    (MAP, "if (row < p.L) {", "if (row <= p.L) {"),
    (BIAS, "int i = int(simdgroup_index);", "int i = int(simdgroup_index) + 1;"),
    (BIAS, "(int64_t(group.z) * p.B + b) * p.H", "(int64_t(group.z) + b) * p.H"),
    (BIAS, "if (int(simdgroup_index) < half_way) {", "if (half_way > 1) {"),
    (BIAS, "half_way = kBiasThreads / 2", "half_way = kBiasThreads / 4"),
    (BIAS, "if (column < HEAD_DIM) {\n    for", "{\n    for"),
)

ATTENTION_OFFSETS: tuple[tuple[str, str, str, str], ...] = (
    (FWD, "b * p.q.b", "int(b * p.q.b)", "b"),
    (FWD, "h * p.k.h", "int(h * p.k.h)", "h"),
    (FWD, "l * p.q.l", "int(l * p.q.l)", "l"),
    (FWD, "int64_t(first + row) * row_stride", "int(int64_t(first + row) * row_stride)", "l"),
    (FWD, "int64_t(chunk * 4) * stride", "int(int64_t(chunk * 4) * stride)", "d"),
    (DQ, "b * p.dout.b", "int(b * p.dout.b)", "b"),
    (
        DQ,
        "device const ELEMENT* o_row,\n                  int64_t",
        "device const ELEMENT* o_row, int",
        "d",
    ),
    (DKV, "l * p.v.l", "int(l * p.v.l)", "l"),
    (DKV, "b * p.dout.b", "int(b * p.dout.b)", "b"),
)
