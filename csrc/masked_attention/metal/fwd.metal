// Forward. A threadgroup owns ROWS queries of one head, a simdgroup eight of them; tiles of keys
// and then of values pass through one buffer of threadgroup memory. Maths: masked_attention.md.
#include "masked_attention/metal/common.metal"

// A lane's share of its simdgroup's eight queries: one row, two columns of each fragment.
struct Queries {
  float2 q[FRAGMENTS];    // times scale * log2(e)
  float2 sum[FRAGMENTS];  // the output, not yet divided
  float largest;          // of the scores so far, the same in all lanes of a row
  float total;            // of the lane's own weights
  long id;
};

inline void begin(thread Queries& x, device const ELEMENT* q_row, int64_t stride, float scale,
                  int column) {
#pragma unroll
  for (int f = 0; f < FRAGMENTS; ++f) {
    x.q[f] = load_pair(q_row, stride, f * 8 + column, x.id) * (scale * LOG2E);
    x.sum[f] = float2(0.0f);
  }
  // Far below every score, and finite: the difference of two infinities is NaN.
  x.largest = -1e38f;
  x.total = 0.0f;
}

// The row begins as if the extra key had been seen.
inline void begin_with_bias(thread Queries& x, device const float* bias_k,
                            device const float* bias_v, int column) {
  float score = 0.0f;
#pragma unroll
  for (int f = 0; f < FRAGMENTS; ++f) {
    const int at = f * 8 + column;
    score += x.q[f].x * bias_k[at] + x.q[f].y * bias_k[at + 1];
    x.sum[f] = float2(bias_v[at], bias_v[at + 1]);
  }
  x.largest = row_sum(score);
  x.total = column == 0 ? 1.0f : 0.0f;
}

// The scores of a tile, and their new maximum.
inline float score(thread const Queries& x, thread float2* scores, threadgroup const ELEMENT* keys,
                   threadgroup const long* ids, bool partial, int row, int column) {
  float largest = x.largest;
#pragma unroll
  for (int j = 0; j < TILE / 8; ++j) {
    float2 s = float2(0.0f);
#pragma unroll
    for (int f = 0; f < FRAGMENTS; ++f) {
      multiply_accumulate(s, x.q[f],
                          load_transposed(keys + j * 8 * STAGED + f * 8, STAGED, row, column));
    }
    scores[j] = s;
    if (!partial || ids[j * 8 + column] == x.id) {
      largest = max(largest, s.x);
    }
    if (!partial || ids[j * 8 + column + 1] == x.id) {
      largest = max(largest, s.y);
    }
  }
  return row_max(largest);
}

// Weights in the place of scores; what was summed before is rescaled to the new maximum.
inline void weigh(thread Queries& x, thread float2* scores, float largest,
                  threadgroup const long* ids, bool partial, int column) {
  const float rescale = fast::exp2(x.largest - largest);
  x.largest = largest;
  x.total *= rescale;
#pragma unroll
  for (int f = 0; f < FRAGMENTS; ++f) {
    x.sum[f] *= rescale;
  }
#pragma unroll
  for (int j = 0; j < TILE / 8; ++j) {
    float2 weights = float2(fast::exp2(scores[j].x - largest), fast::exp2(scores[j].y - largest));
    if (partial) {
      weights = select_same(weights, ids, j * 8 + column, x.id);
    }
    x.total += weights.x + weights.y;
    scores[j] = weights;
  }
}

inline void add_values(thread Queries& x, thread const float2* weights,
                       threadgroup const ELEMENT* values, int row, int column) {
#pragma unroll
  for (int j = 0; j < TILE / 8; ++j) {
#pragma unroll
    for (int f = 0; f < FRAGMENTS; ++f) {
      multiply_accumulate(x.sum[f], weights[j],
                          load_fragment(values + j * 8 * STAGED + f * 8, STAGED, row, column));
    }
  }
}

// Grid: (L in steps of ROWS, H, B). Without segments or bias their buffers are bound to another,
// unread.
[[kernel, max_total_threads_per_threadgroup(THREADS)]] void masked_attention_fwd(
    device const ELEMENT* q [[buffer(0)]], device const ELEMENT* k [[buffer(1)]],
    device const ELEMENT* v [[buffer(2)]], device ELEMENT* o [[buffer(3)]],
    device float* lse [[buffer(4)]], constant AttentionForwardParams& p [[buffer(5)]],
    device const long* segment_ids [[buffer(6)]], device const uint* map [[buffer(7)]],
    device const float* bias_k [[buffer(8)]], device const float* bias_v [[buffer(9)]],
    uint3 group [[threadgroup_position_in_grid]], uint thread_index [[thread_index_in_threadgroup]],
    uint simdgroup_index [[simdgroup_index_in_threadgroup]],
    uint lane [[thread_index_in_simdgroup]]) {
  threadgroup Element4 tile[TILE * STAGED / 4];
  threadgroup long tile_ids[TILE];
  threadgroup const ELEMENT* staged = reinterpret_cast<threadgroup const ELEMENT*>(tile);
  const int b = int(group.z);
  const int h = int(group.y);
  const int first_row = int(group.x) * ROWS;
  const int row = fragment_row(lane);
  const int column = fragment_column(lane);
  const int l = first_row + int(simdgroup_index) * 8 + row;
  device const long* ids = segment_ids + int64_t(b) * p.L;
  device const ELEMENT* k_head = k + b * p.k.b + h * p.k.h;
  device const ELEMENT* v_head = v + b * p.v.b + h * p.v.h;

  Queries x;
  x.id = segment_at(ids, l, p.L);
  begin(x, q + b * p.q.b + h * p.q.h + l * p.q.l, p.q.d, p.scale, column);
  if (HAS_BIAS) {
    begin_with_bias(x, bias_k + h * HEAD_DIM, bias_v + h * HEAD_DIM, column);
  }
  Walk walk = start_walk();
  while (next_tile(walk, map, b, first_row, p.words, p.L)) {
    threadgroup_barrier(mem_flags::mem_threadgroup);  // the last tile's values are used
    if (walk.partial) {
      stage_ids(tile_ids, ids, walk.first, p.L, thread_index);
      threadgroup_barrier(mem_flags::mem_threadgroup);
    }
    stage(tile, k_head, p.k.l, p.k.d, walk.first, walk.partial, tile_ids, thread_index);
    threadgroup_barrier(mem_flags::mem_threadgroup);
    float2 weights[TILE / 8];
    const float largest = score(x, weights, staged, tile_ids, walk.partial, row, column);
    weigh(x, weights, largest, tile_ids, walk.partial, column);
    threadgroup_barrier(mem_flags::mem_threadgroup);  // the keys are used
    stage(tile, v_head, p.v.l, p.v.d, walk.first, walk.partial, tile_ids, thread_index);
    threadgroup_barrier(mem_flags::mem_threadgroup);
    add_values(x, weights, staged, row, column);
  }

  const float total = row_sum(x.total);
  if (l < p.L) {
    device ELEMENT* o_row = o + b * p.o.b + h * p.o.h + l * p.o.l;
#pragma unroll
    for (int f = 0; f < FRAGMENTS; ++f) {
      store_pair(o_row, p.o.d, f * 8 + column, x.sum[f] / total, x.id);
    }
    if (column == 0) {
      lse[(int64_t(b) * p.H + h) * p.L + l] = x.id != 0l ? x.largest + log2(total) : 0.0f;
    }
  }
}
