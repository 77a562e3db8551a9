// Backward: every element of both gradients has one owner, which adds in the order of the batch.
#include "metal/shading/fragment.h"
#include "positional_embedding/metal/params.h"

// Unit stride in C, and rows that begin at a multiple of four elements.
constant bool VECTORS [[function_constant(0)]];

// A row of the batch in its two parts. A thread walks from the row that it stages to that of the
// next tile in 32 bits: a division of 64 is many instructions on a GPU.
struct BatchRow {
  int b;
  uint l;
};

inline void walk(thread BatchRow& row, int rows, int L) {
  row.l += uint(rows);
  row.b += int(row.l / uint(L));
  row.l %= uint(L);
}

// Where a row of dout begins.
inline int64_t dout_at(constant EmbeddingBackwardParams& p, BatchRow row) {
  return row.b * p.dout_b + row.l * p.dout_l;
}

// ---- Token table: a product with the one-hot matrix of the tokens -------------------------------

constant constexpr int VOCAB_FRAGMENTS = kTokens / kFragment;
static_assert(kTokenRows / kLanesOfSimdgroup * kFragment == kTokenColumns,
              "a fragment a simdgroup");

// parts: (chunks, vocab, C). Grid: (tiles of kTokenColumns, tiles of kTokens, chunks of rows).
[[kernel, max_total_threads_per_threadgroup(kTokenRows)]] void positional_embedding_bwd_tokens(
    device const EmbeddingLookup* lookups [[buffer(0)]], device const ELEMENT* dout [[buffer(1)]],
    device float* parts [[buffer(2)]], constant EmbeddingBackwardParams& p [[buffer(3)]],
    uint3 group [[threadgroup_position_in_grid]], uint thread_index [[thread_index_in_threadgroup]],
    uint simdgroup_index [[simdgroup_index_in_threadgroup]],
    uint lane [[thread_index_in_simdgroup]]) {
  threadgroup int staged_tokens[kTokenRows];  // -1 where the row adds nothing
  threadgroup float staged_factors[kTokenRows];
  threadgroup int64_t staged_at[kTokenRows];  // where the rows of dout begin
  const int row = fragment_row(lane);
  const int column = fragment_column(lane);
  const int c = int(group.x) * kTokenColumns + int(simdgroup_index) * 8 + column;
  const int first_token = int(group.y) * kTokens;
  const int64_t begin = int64_t(group.z) * p.chunk;
  const int64_t end = min(begin + int64_t(p.chunk), int64_t(p.B) * p.L);
  BatchRow own;
  own.b = int((begin + thread_index) / p.L);
  own.l = uint((begin + thread_index) % p.L);

  float2 sum[VOCAB_FRAGMENTS];
#pragma unroll
  for (int m = 0; m < VOCAB_FRAGMENTS; ++m) {
    sum[m] = float2(0.0f);
  }
  for (int64_t first = begin; first < end; first += kTokenRows) {
    threadgroup_barrier(mem_flags::mem_threadgroup);  // the last rows are added
    int token = -1;
    float factor = 0.0f;
    if (first + thread_index < end) {
      const EmbeddingLookup lookup = lookups[first + thread_index];
      if (lookup.position >= 0 && lookup.factor != 0.0f) {
        token = lookup.token;
        factor = lookup.factor;
      }
    }
    staged_tokens[thread_index] = token;
    staged_factors[thread_index] = factor;
    staged_at[thread_index] = dout_at(p, own);
    walk(own, kTokenRows, p.L);
    threadgroup_barrier(mem_flags::mem_threadgroup);
    const int count = int(min(int64_t(kTokenRows), end - first));
    for (int i = 0; i < count; i += 8) {
      float2 x = float2(0.0f);
      if (staged_tokens[i + row] >= 0) {
        device const ELEMENT* from = dout + staged_at[i + row] + c * p.dout_c;
        x.x = c < p.C ? float(from[0]) : 0.0f;
        x.y = c + 1 < p.C ? float(from[p.dout_c]) : 0.0f;
      }
#pragma unroll
      for (int m = 0; m < VOCAB_FRAGMENTS; ++m) {
        const int v = first_token + m * 8 + row;
        const float2 one_hot =
            float2(staged_tokens[i + column] == v ? staged_factors[i + column] : 0.0f,
                   staged_tokens[i + column + 1] == v ? staged_factors[i + column + 1] : 0.0f);
        multiply_accumulate(sum[m], one_hot, x);
      }
    }
  }
#pragma unroll
  for (int m = 0; m < VOCAB_FRAGMENTS; ++m) {
    const int v = first_token + m * 8 + row;
    device float* to = parts + (int64_t(group.z) * p.vocab + v) * p.C + c;
    if (v < p.vocab && c < p.C) {
      to[0] = sum[m].x;
    }
    if (v < p.vocab && c + 1 < p.C) {
      to[1] = sum[m].y;
    }
  }
}

// Grid: (tiles of kSumElements of (vocab, C), 1, 1).
[[kernel, max_total_threads_per_threadgroup(kSumElements)]] void positional_embedding_bwd_sum(
    device const float* parts [[buffer(0)]], device ELEMENT* dtoken_table [[buffer(1)]],
    constant EmbeddingBackwardParams& p [[buffer(2)]], uint3 group [[threadgroup_position_in_grid]],
    uint thread_index [[thread_index_in_threadgroup]]) {
  const int64_t size = int64_t(p.vocab) * p.C;
  const int64_t at = int64_t(group.x) * kSumElements + thread_index;
  if (at >= size) {
    return;
  }
  float sum = 0.0f;
  for (int i = 0; i < p.chunks; ++i) {
    sum += parts[i * size + at];
  }
  dtoken_table[at] = ELEMENT(sum);
}

// ---- Position table -----------------------------------------------------------------------------

constant constexpr int PLACES = kPositions * kLanesOfSimdgroup;  // rows whose places are staged
constant constexpr int HALF = kPositionColumns / 2;
static_assert(HALF == 4 * kLanesOfSimdgroup, "a lane owns four columns of each half");

inline float4 load_four(device const ELEMENT* row, int64_t stride, int c, int C) {
  if (VECTORS) {
    return c < C ? float4(*reinterpret_cast<device const Element4*>(row + c)) : float4(0.0f);
  }
  float4 x = float4(0.0f);
  for (int i = 0; i < 4 && c + i < C; ++i) {
    x[i] = float(row[int64_t(c + i) * stride]);
  }
  return x;
}

inline void store_four(device ELEMENT* row, int c, int C, float4 x) {
  if (VECTORS) {
    if (c < C) {
      *reinterpret_cast<device Element4*>(row + c) = Element4(x);
    }
    return;
  }
  for (int i = 0; i < 4 && c + i < C; ++i) {
    row[c + i] = ELEMENT(x[i]);
  }
}

// Grid: (tiles of kPositions, tiles of kPositionColumns, 1).
[[kernel, max_total_threads_per_threadgroup(PLACES)]] void positional_embedding_bwd_positions(
    device const EmbeddingLookup* lookups [[buffer(0)]], device const ELEMENT* dout [[buffer(1)]],
    device ELEMENT* dposition_table [[buffer(2)]],
    constant EmbeddingBackwardParams& p [[buffer(3)]], uint3 group [[threadgroup_position_in_grid]],
    uint thread_index [[thread_index_in_threadgroup]],
    uint simdgroup_index [[simdgroup_index_in_threadgroup]],
    uint lane [[thread_index_in_simdgroup]]) {
  threadgroup int places[PLACES];
  threadgroup int64_t places_at[PLACES];  // where the rows of dout begin
  const int position = int(group.x) * kPositions + int(simdgroup_index);
  const int c = int(group.y) * kPositionColumns + int(lane) * 4;
  const int64_t rows = int64_t(p.B) * p.L;
  BatchRow own;
  own.b = 0;
  own.l = 0u;
  walk(own, int(thread_index), p.L);
  float4 left = float4(0.0f);
  float4 right = float4(0.0f);
  for (int64_t first = 0; first < rows; first += PLACES) {
    threadgroup_barrier(mem_flags::mem_threadgroup);  // the last rows are added
    int place = kPaddingPosition;
    if (first + thread_index < rows) {
      place = lookups[first + thread_index].position;
    }
    places[thread_index] = place;
    places_at[thread_index] = dout_at(p, own);
    walk(own, PLACES, p.L);
    threadgroup_barrier(mem_flags::mem_threadgroup);
    for (int i = 0; i < PLACES; i += kLanesOfSimdgroup) {
      uint found = simd_or(places[i + int(lane)] == position ? 1u << lane : 0u);
      while (found != 0u) {
        device const ELEMENT* from = dout + places_at[i + int(ctz(found))];
        found &= found - 1u;
        left += load_four(from, p.dout_c, c, p.C);
        right += load_four(from, p.dout_c, c + HALF, p.C);
      }
    }
  }
  if (position < p.positions) {
    device ELEMENT* to = dposition_table + int64_t(position) * p.C;
    store_four(to, c, p.C, left);
    store_four(to, c + HALF, p.C, right);
  }
}
