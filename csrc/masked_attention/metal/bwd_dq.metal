// Backward, dq: a threadgroup owns ROWS queries of one head, a simdgroup SIMDGROUP_ROWS of them;
// tiles of keys and values pass by. Also delta, which the dk and dv kernel reads, and the part of
// each eight rows in the bias gradients. Maths: masked_attention.md.
#include "masked_attention/metal/common.metal"

// A lane's share of eight queries: one row, two columns of each fragment.
struct Queries {
  Element2 q[FRAGMENTS];
  Element2 dout[FRAGMENTS];
  float2 dq[FRAGMENTS];  // not yet scaled
  float lse, delta;
  long id;
};

inline void begin(thread Queries& x, device const ELEMENT* q_row, int64_t q_stride,
                  device const ELEMENT* dout_row, int64_t dout_stride, device const ELEMENT* o_row,
                  int64_t o_stride, int column) {
  float delta = 0.0f;
#pragma unroll
  for (int f = 0; f < FRAGMENTS; ++f) {
    const int at = f * 8 + column;
    const float2 o = float2(load_pair(o_row, o_stride, at, x.id));
    x.q[f] = load_pair(q_row, q_stride, at, x.id);
    x.dout[f] = load_pair(dout_row, dout_stride, at, x.id);
    x.dq[f] = float2(0.0f);
    const float2 dout = float2(x.dout[f]);
    delta += dout.x * o.x + dout.y * o.y;
  }
  x.delta = row_sum(delta);
}

// dq of the extra key, and the eight rows' sums for the gradients of bias_k and bias_v.
inline void add_bias(thread Queries& x, device const float* bias_k, device const float* bias_v,
                     device float* dbias_k, device float* dbias_v, float scale, int row,
                     int column) {
  float score = 0.0f;
  float dweight = 0.0f;
#pragma unroll
  for (int f = 0; f < FRAGMENTS; ++f) {
    const int at = f * 8 + column;
    const float2 q = float2(x.q[f]);
    const float2 dout = float2(x.dout[f]);
    score += q.x * bias_k[at] + q.y * bias_k[at + 1];
    dweight += dout.x * bias_v[at] + dout.y * bias_v[at + 1];
  }
  // Collectives stand outside conditions: lanes of padding rows take part as well.
  score = row_sum(score) * (scale * LOG2E);
  dweight = row_sum(dweight);
  const float weight = x.id != 0l ? fast::exp2(score - x.lse) : 0.0f;
  const float dscore = weight * (dweight - x.delta);
#pragma unroll
  for (int f = 0; f < FRAGMENTS; ++f) {
    const int at = f * 8 + column;
    x.dq[f] += dscore * float2(bias_k[at], bias_k[at + 1]);
    const float2 dk = dscore * scale * float2(x.q[f]);
    const float2 dv = weight * float2(x.dout[f]);
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

// What a fragment of keys and values weighs in dq of eight queries.
inline float2 dscores(thread const Queries& x, float2 s, float2 dweight, float scale,
                      threadgroup const long* ids, bool partial, int column) {
  const float2 exponent = s * scale - x.lse;
  const float2 weight = float2(fast::exp2(exponent.x), fast::exp2(exponent.y));
  const float2 dscore = weight * (dweight - x.delta);
  // Selected last: what a key of another segment holds may make any of the factors NaN.
  return partial ? select_same(dscore, ids, column, x.id) : dscore;
}

// dscore of eight keys of a tile, for all of the simdgroup's queries.
inline void score(thread Queries* x, thread float2* dscore, threadgroup const ELEMENT* keys,
                  threadgroup const ELEMENT* values, float scale, threadgroup const long* ids,
                  bool partial, int row, int column) {
  float2 s[ROW_FRAGMENTS];
  float2 dweight[ROW_FRAGMENTS];
#pragma unroll
  for (int m = 0; m < ROW_FRAGMENTS; ++m) {
    s[m] = float2(0.0f);
    dweight[m] = float2(0.0f);
  }
#pragma unroll
  for (int f = 0; f < FRAGMENTS; ++f) {
    fence();
    const float2 k = load_transposed(keys + f * 8, STAGED, row, column);
    const float2 v = load_transposed(values + f * 8, STAGED, row, column);
    fence();
#pragma unroll
    for (int m = 0; m < ROW_FRAGMENTS; ++m) {
      multiply_accumulate(s[m], float2(x[m].q[f]), k);
      multiply_accumulate(dweight[m], float2(x[m].dout[f]), v);
    }
  }
#pragma unroll
  for (int m = 0; m < ROW_FRAGMENTS; ++m) {
    dscore[m] = dscores(x[m], s[m], dweight[m], scale, ids, partial, column);
  }
}

inline void add_keys(thread Queries* x, thread const float2* dscore,
                     threadgroup const ELEMENT* keys, int row, int column) {
#pragma unroll
  for (int f = 0; f < FRAGMENTS; ++f) {
    fence();
    const float2 k = load_fragment(keys + f * 8, STAGED, row, column);
    fence();
#pragma unroll
    for (int m = 0; m < ROW_FRAGMENTS; ++m) {
      multiply_accumulate(x[m].dq[f], dscore[m], k);
    }
  }
}

// The same in a partial tile; ids are those of the eight keys.
inline void add_keys_by_segment(thread Queries* x, thread const float2* dscore,
                                threadgroup const ELEMENT* keys, threadgroup const long* ids,
                                threadgroup const long* own_ids, int row, int column) {
  Runs runs = start_runs(own_ids);
  while (next_run(runs, own_ids)) {
    const bool same = ids[row] == runs.id;
#pragma unroll
    for (int f = 0; f < FRAGMENTS; ++f) {
      const float2 k = load_of_segment(keys + f * 8, STAGED, row, column, same);
#pragma unroll
      for (int m = 0; m < ROW_FRAGMENTS; ++m) {
        accumulate_in_run(x[m].dq[f], dscore[m], k, runs, m * 8, row);
      }
    }
  }
}

// Grid: (L in steps of ROWS, H, B), or a part of it that begins at p.first. Without segments or
// bias their buffers are bound to another, unread. dbias_parts: (2, B, H, p.groups * ROWS / 8,
// HEAD_DIM).
[[kernel, max_total_threads_per_threadgroup(THREADS)]] void masked_attention_bwd_dq(
    device const ELEMENT* q [[buffer(0)]], device const ELEMENT* k [[buffer(1)]],
    device const ELEMENT* v [[buffer(2)]], device const ELEMENT* o [[buffer(3)]],
    device const float* lse [[buffer(4)]], device const ELEMENT* dout [[buffer(5)]],
    device ELEMENT* dq [[buffer(6)]], device float* delta [[buffer(7)]],
    constant AttentionBackwardParams& p [[buffer(8)]], device const long* segment_ids [[buffer(9)]],
    device const uint* map [[buffer(10)]], device const float* bias_k [[buffer(11)]],
    device const float* bias_v [[buffer(12)]], device float* dbias_parts [[buffer(13)]],
    uint3 group [[threadgroup_position_in_grid]], uint thread_index [[thread_index_in_threadgroup]],
    uint simdgroup_index [[simdgroup_index_in_threadgroup]],
    uint lane [[thread_index_in_simdgroup]]) {
  threadgroup Element4 keys[TILE * STAGED / 4];
  threadgroup Element4 values[TILE * STAGED / 4];
  threadgroup long tile_ids[TILE];
  threadgroup long own_ids[ROWS];
  const int b = int(group.z) + p.first.z;
  const int h = int(group.y) + p.first.y;
  const int group_of_head = int(group.x) + p.first.x;
  const int first_row = group_of_head * ROWS;
  const int row = fragment_row(lane);
  const int column = fragment_column(lane);
  const int own = int(simdgroup_index) * SIMDGROUP_ROWS;
  const int64_t head = int64_t(b) * p.H + h;
  device const long* ids = segment_ids + int64_t(b) * p.L;

  stage_ids(own_ids, ids, first_row, ROWS, p.L, thread_index);
  Queries x[ROW_FRAGMENTS];
#pragma unroll
  for (int m = 0; m < ROW_FRAGMENTS; ++m) {
    const int l = first_row + own + m * 8 + row;
    x[m].id = segment_at(ids, l, p.L);
    x[m].lse = 0.0f;
    if (x[m].id != 0l) {
      x[m].lse = lse[head * p.L + l];
    }
    begin(x[m], q + b * p.q.b + h * p.q.h + l * p.q.l, p.q.d,
          dout + b * p.dout.b + h * p.dout.h + l * p.dout.l, p.dout.d,
          o + b * p.o.b + h * p.o.h + l * p.o.l, p.o.d, column);
    if (l < p.L && column == 0) {
      delta[head * p.L + l] = x[m].delta;
    }
    if (HAS_BIAS) {
      const int64_t parts = int64_t(p.groups) * (ROWS / kFragment);
      const int64_t part = int64_t(group_of_head) * (ROWS / kFragment) + own / kFragment + m;
      device float* dbias_k = dbias_parts + (head * parts + part) * HEAD_DIM;
      add_bias(x[m], bias_k + h * HEAD_DIM, bias_v + h * HEAD_DIM, dbias_k,
               dbias_k + int64_t(p.B) * p.H * parts * HEAD_DIM, p.scale, row, column);
    }
  }
  Walk walk = start_walk();
  while (next_tile(walk, map, b, first_row, p.words, p.L)) {
    threadgroup_barrier(mem_flags::mem_threadgroup);  // the last tile is used
    if (walk.partial) {
      stage_ids(tile_ids, ids, walk.first, TILE, p.L, thread_index);
      threadgroup_barrier(mem_flags::mem_threadgroup);
    }
    stage(keys, k + b * p.k.b + h * p.k.h, p.k.l, p.k.d, walk.first, walk.partial, tile_ids,
          thread_index);
    stage(values, v + b * p.v.b + h * p.v.h, p.v.l, p.v.d, walk.first, walk.partial, tile_ids,
          thread_index);
    threadgroup_barrier(mem_flags::mem_threadgroup);
#pragma unroll
    for (int j = 0; j < TILE; j += 8) {
      threadgroup const ELEMENT* eight = reinterpret_cast<threadgroup const ELEMENT*>(keys);
      eight += j * STAGED;
      float2 dscore[ROW_FRAGMENTS];
      score(x, dscore, eight, reinterpret_cast<threadgroup const ELEMENT*>(values) + j * STAGED,
            p.scale * LOG2E, tile_ids + j, walk.partial, row, column);
      if (walk.partial) {
        add_keys_by_segment(x, dscore, eight, tile_ids + j, own_ids + own, row, column);
      } else {
        add_keys(x, dscore, eight, row, column);
      }
    }
  }
#pragma unroll
  for (int m = 0; m < ROW_FRAGMENTS; ++m) {
    const int l = first_row + own + m * 8 + row;
    if (l < p.L) {
      device ELEMENT* dq_row = dq + b * p.dq.b + h * p.dq.h + l * p.dq.l;
#pragma unroll
      for (int f = 0; f < FRAGMENTS; ++f) {
        store_pair(dq_row, p.dq.d, f * 8 + column, x[m].dq[f] * p.scale, x[m].id);
      }
    }
  }
}
