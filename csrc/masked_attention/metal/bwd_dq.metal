// Backward, dq: a threadgroup owns ROWS queries of one head, a simdgroup eight of them; tiles of
// keys and values pass by. Also delta, which the dk and dv kernel reads, and each simdgroup's part
// of the bias gradients. Maths: masked_attention.md.
#include "masked_attention/metal/common.metal"

// A lane's share of its simdgroup's eight queries: one row, two columns of each fragment.
struct Queries {
  float2 q[FRAGMENTS];  // times scale * log2(e)
  float2 dout[FRAGMENTS];
  float2 dq[FRAGMENTS];  // not yet scaled
  float lse, delta;
  long id;
};

inline void begin(thread Queries& x, device const ELEMENT* q_row, int64_t q_stride,
                  device const ELEMENT* dout_row, int64_t dout_stride, device const ELEMENT* o_row,
                  int64_t o_stride, float scale, int column) {
  float delta = 0.0f;
#pragma unroll
  for (int f = 0; f < FRAGMENTS; ++f) {
    const int at = f * 8 + column;
    const float2 o = load_pair(o_row, o_stride, at, x.id);
    x.q[f] = load_pair(q_row, q_stride, at, x.id) * (scale * LOG2E);
    x.dout[f] = load_pair(dout_row, dout_stride, at, x.id);
    x.dq[f] = float2(0.0f);
    delta += x.dout[f].x * o.x + x.dout[f].y * o.y;
  }
  x.delta = row_sum(delta);
}

// dq of the extra key, and the simdgroup's sums for the gradients of bias_k and bias_v.
inline void add_bias(thread Queries& x, device const float* bias_k, device const float* bias_v,
                     device float* dbias_k, device float* dbias_v, int row, int column) {
  float score = 0.0f;
  float dweight = 0.0f;
#pragma unroll
  for (int f = 0; f < FRAGMENTS; ++f) {
    const int at = f * 8 + column;
    score += x.q[f].x * bias_k[at] + x.q[f].y * bias_k[at + 1];
    dweight += x.dout[f].x * bias_v[at] + x.dout[f].y * bias_v[at + 1];
  }
  // Collectives stand outside conditions: lanes of padding rows take part as well.
  score = row_sum(score);
  dweight = row_sum(dweight);
  const float weight = x.id != 0l ? fast::exp2(score - x.lse) : 0.0f;
  const float dscore = weight * (dweight - x.delta);
#pragma unroll
  for (int f = 0; f < FRAGMENTS; ++f) {
    const int at = f * 8 + column;
    x.dq[f] += dscore * float2(bias_k[at], bias_k[at + 1]);
    const float2 dk = dscore * LN2 * x.q[f];
    const float2 dv = weight * x.dout[f];
    const float2 dk_sum = float2(column_sum(dk.x), column_sum(dk.y));
    const float2 dv_sum = float2(column_sum(dv.x), column_sum(dv.y));
    if (row == 0) {
      dbias_k[at] = dk_sum.x;
      dbias_k[at + 1] = dk_sum.y;
      dbias_v[at] = dv_sum.x;
      dbias_v[at + 1] = dv_sum.y;
    }
  }
}

inline void add_tile(thread Queries& x, threadgroup const ELEMENT* keys,
                     threadgroup const ELEMENT* values, threadgroup const long* ids, bool partial,
                     int row, int column) {
#pragma unroll
  for (int j = 0; j < TILE / 8; ++j) {
    float2 s = float2(0.0f);
    float2 dweight = float2(0.0f);
#pragma unroll
    for (int f = 0; f < FRAGMENTS; ++f) {
      const int at = j * 8 * STAGED + f * 8;
      multiply_accumulate(s, x.q[f], load_transposed(keys + at, STAGED, row, column));
      multiply_accumulate(dweight, x.dout[f], load_transposed(values + at, STAGED, row, column));
    }
    float2 weight = float2(fast::exp2(s.x - x.lse), fast::exp2(s.y - x.lse));
    if (partial) {
      weight = select_same(weight, ids, j * 8 + column, x.id);
    }
    const float2 dscore = weight * (dweight - x.delta);
#pragma unroll
    for (int f = 0; f < FRAGMENTS; ++f) {
      multiply_accumulate(x.dq[f], dscore,
                          load_fragment(keys + j * 8 * STAGED + f * 8, STAGED, row, column));
    }
  }
}

// Grid: (L in steps of ROWS, H, B). Without segments or bias their buffers are bound to another,
// unread. dbias_parts: (2, B, H, simdgroups of the grid's x axis, D), k before v.
[[kernel, max_total_threads_per_threadgroup(THREADS)]] void masked_attention_bwd_dq(
    device const ELEMENT* q [[buffer(0)]], device const ELEMENT* k [[buffer(1)]],
    device const ELEMENT* v [[buffer(2)]], device const ELEMENT* o [[buffer(3)]],
    device const float* lse [[buffer(4)]], device const ELEMENT* dout [[buffer(5)]],
    device ELEMENT* dq [[buffer(6)]], device float* delta [[buffer(7)]],
    constant AttentionBackwardParams& p [[buffer(8)]], device const long* segment_ids [[buffer(9)]],
    device const uint* map [[buffer(10)]], device const float* bias_k [[buffer(11)]],
    device const float* bias_v [[buffer(12)]], device float* dbias_parts [[buffer(13)]],
    uint3 group [[threadgroup_position_in_grid]], uint3 groups [[threadgroups_per_grid]],
    uint thread_index [[thread_index_in_threadgroup]],
    uint simdgroup_index [[simdgroup_index_in_threadgroup]],
    uint lane [[thread_index_in_simdgroup]]) {
  threadgroup Element4 keys[TILE * STAGED / 4];
  threadgroup Element4 values[TILE * STAGED / 4];
  threadgroup long tile_ids[TILE];
  const int b = int(group.z);
  const int h = int(group.y);
  const int first_row = int(group.x) * ROWS;
  const int row = fragment_row(lane);
  const int column = fragment_column(lane);
  const int l = first_row + int(simdgroup_index) * 8 + row;
  const int64_t head = int64_t(b) * p.H + h;
  device const long* ids = segment_ids + int64_t(b) * p.L;

  Queries x;
  x.id = segment_at(ids, l, p.L);
  x.lse = x.id != 0l ? lse[head * p.L + l] : 0.0f;
  begin(x, q + b * p.q.b + h * p.q.h + l * p.q.l, p.q.d,
        dout + b * p.dout.b + h * p.dout.h + l * p.dout.l, p.dout.d,
        o + b * p.o.b + h * p.o.h + l * p.o.l, p.o.d, p.scale, column);
  if (l < p.L && column == 0) {
    delta[head * p.L + l] = x.delta;
  }
  if (HAS_BIAS) {
    const int64_t parts = int64_t(groups.x) * (ROWS / kFragment);
    const int64_t part = int64_t(group.x) * (ROWS / kFragment) + int64_t(simdgroup_index);
    device float* dbias_k = dbias_parts + (head * parts + part) * HEAD_DIM;
    add_bias(x, bias_k + h * HEAD_DIM, bias_v + h * HEAD_DIM, dbias_k,
             dbias_k + int64_t(p.B) * p.H * parts * HEAD_DIM, row, column);
  }
  Walk walk = start_walk();
  while (next_tile(walk, map, b, first_row, p.words, p.L)) {
    threadgroup_barrier(mem_flags::mem_threadgroup);  // the last tile is used
    if (walk.partial) {
      stage_ids(tile_ids, ids, walk.first, p.L, thread_index);
      threadgroup_barrier(mem_flags::mem_threadgroup);
    }
    stage(keys, k + b * p.k.b + h * p.k.h, p.k.l, p.k.d, walk.first, walk.partial, tile_ids,
          thread_index);
    stage(values, v + b * p.v.b + h * p.v.h, p.v.l, p.v.d, walk.first, walk.partial, tile_ids,
          thread_index);
    threadgroup_barrier(mem_flags::mem_threadgroup);
    add_tile(x, reinterpret_cast<threadgroup const ELEMENT*>(keys),
             reinterpret_cast<threadgroup const ELEMENT*>(values), tile_ids, walk.partial, row,
             column);
  }
  if (l < p.L) {
    device ELEMENT* dq_row = dq + b * p.dq.b + h * p.dq.h + l * p.dq.l;
#pragma unroll
    for (int f = 0; f < FRAGMENTS; ++f) {
      store_pair(dq_row, p.dq.d, f * 8 + column, x.dq[f] * p.scale, x.id);
    }
  }
}
