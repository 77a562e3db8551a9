// Forward: a simdgroup fills one row of the output, four columns a lane.
#include "metal/shading/types.h"
#include "positional_embedding/metal/params.h"

using namespace metal;

typedef vec<ELEMENT, 4> Element4;

// Unit strides in C, and rows that begin at a multiple of four elements.
constant bool VECTORS [[function_constant(0)]];

constant constexpr int THREADS = kForwardRows * kLanesOfSimdgroup;

// Columns [column, column + 4) of one row, those below C.
inline float4 load_four(device const ELEMENT* row, int64_t stride, int column, int C) {
  if (VECTORS) {
    return float4(*reinterpret_cast<device const Element4*>(row + column));
  }
  float4 x = float4(0.0f);
  for (int i = 0; i < 4 && column + i < C; ++i) {
    x[i] = float(row[int64_t(column + i) * stride]);
  }
  return x;
}

// Grid: (tiles of kForwardRows, 1, 1).
[[kernel, max_total_threads_per_threadgroup(THREADS)]] void positional_embedding_fwd(
    device const EmbeddingLookup* lookups [[buffer(0)]],
    device const ELEMENT* token_table [[buffer(1)]],
    device const ELEMENT* position_table [[buffer(2)]], device ELEMENT* out [[buffer(3)]],
    constant EmbeddingForwardParams& p [[buffer(4)]], uint3 group [[threadgroup_position_in_grid]],
    uint simdgroup_index [[simdgroup_index_in_threadgroup]],
    uint lane [[thread_index_in_simdgroup]]) {
  const int64_t at = int64_t(group.x) * kForwardRows + int64_t(simdgroup_index);
  if (at >= p.rows) {
    return;
  }
  const EmbeddingLookup lookup = lookups[at];
  const bool inside = lookup.position >= 0;
  device const ELEMENT* token_row = token_table + int64_t(lookup.token) * p.token_row;
  device const ELEMENT* position_row =
      position_table + int64_t(inside ? lookup.position : 0) * p.position_row;
  for (int column = int(lane) * 4; column < p.C; column += 4 * kLanesOfSimdgroup) {
    // A token or a position outside its table shows in the result: it is no number.
    float4 x = float4(lookup.position == kOutsidePosition ? NAN : 0.0f);
    if (inside) {
      x = load_four(position_row, p.position_column, column, p.C);
      if (lookup.factor != 0.0f) {
        x += lookup.factor * load_four(token_row, p.token_column, column, p.C);
      }
    }
    device ELEMENT* to = out + at * p.C + column;
    if (VECTORS) {
      *reinterpret_cast<device Element4*>(to) = Element4(x);
    } else {
      for (int i = 0; i < 4 && column + i < p.C; ++i) {
        to[i] = ELEMENT(x[i]);
      }
    }
  }
}
