// Forward. A threadgroup owns ROWS queries of one head, a simdgroup SIMDGROUP_ROWS of them; tiles
// of keys and then of values pass through one buffer of threadgroup memory. Maths:
// masked_attention.md.
#include "masked_attention/metal/common.metal"

// A lane's share of eight queries: one row, two columns of each fragment.
struct Queries {
  Element2 q[FRAGMENTS];
  float2 sum[FRAGMENTS];     // the output, not yet divided
  float2 weights[TILE / 8];  // of a tile: scores, then their weights
  float largest;             // of the scores so far, the same in all lanes of a row
  float total;               // of the lane's own weights
  long id;
};

inline void begin(thread Queries& x, device const ELEMENT* q_row, int64_t stride, int column) {
#pragma unroll
  for (int f = 0; f < FRAGMENTS; ++f) {
    x.q[f] = load_pair(q_row, stride, f * 8 + column, x.id);
    x.sum[f] = float2(0.0f);
  }
  // Below every score, and finite: the difference of two infinities is NaN.
  x.largest = -FLT_MAX;
  x.total = 0.0f;
}

// The row begins as if the extra key had been seen.
inline void begin_with_bias(thread Queries& x, device const float* bias_k,
                            device const float* bias_v, float scale, int column) {
  float score = 0.0f;
#pragma unroll
  for (int f = 0; f < FRAGMENTS; ++f) {
    const int at = f * 8 + column;
    const float2 q = float2(x.q[f]);
    score += q.x * bias_k[at] + q.y * bias_k[at + 1];
    x.sum[f] = float2(bias_v[at], bias_v[at + 1]);
  }
  x.largest = row_sum(score) * scale;
  x.total = column == 0 ? 1.0f : 0.0f;
}

// The scores of a tile, times scale * log2(e).
inline void score(thread Queries* x, threadgroup const ELEMENT* keys, float scale, int row,
                  int column) {
#pragma unroll
  for (int j = 0; j < TILE / 8; ++j) {
#pragma unroll
    for (int m = 0; m < ROW_FRAGMENTS; ++m) {
      x[m].weights[j] = float2(0.0f);
    }
#pragma unroll
    for (int f = 0; f < FRAGMENTS; ++f) {
      fence();
      const float2 k = load_transposed(keys + j * 8 * STAGED + f * 8, STAGED, row, column);
      fence();
#pragma unroll
      for (int m = 0; m < ROW_FRAGMENTS; ++m) {
        multiply_accumulate(x[m].weights[j], float2(x[m].q[f]), k);
      }
    }
#pragma unroll
    for (int m = 0; m < ROW_FRAGMENTS; ++m) {
      x[m].weights[j] *= scale;
    }
  }
}

// Weights in the place of scores; what was summed before is rescaled to the new maximum.
inline void weigh(thread Queries& x, threadgroup const long* ids, bool partial, int column) {
  float largest = x.largest;
#pragma unroll
  for (int j = 0; j < TILE / 8; ++j) {
    if (!partial || ids[j * 8 + column] == x.id) {
      largest = max(largest, x.weights[j].x);
    }
    if (!partial || ids[j * 8 + column + 1] == x.id) {
      largest = max(largest, x.weights[j].y);
    }
  }
  largest = row_max(largest);
  // From the first maximum to the next may be farther than float32 reaches.
  const float rescale = fast::exp2(max(x.largest - largest, -200.0f));
  x.largest = largest;
  x.total *= rescale;
#pragma unroll
  for (int f = 0; f < FRAGMENTS; ++f) {
    x.sum[f] *= rescale;
  }
#pragma unroll
  for (int j = 0; j < TILE / 8; ++j) {
    const float2 s = x.weights[j];
    float2 weights = float2(fast::exp2(s.x - largest), fast::exp2(s.y - largest));
    if (partial) {
      weights = select_same(weights, ids, j * 8 + column, x.id);
    }
    x.total += weights.x + weights.y;
    x.weights[j] = weights;
  }
}

inline void add_values(thread Queries* x, threadgroup const ELEMENT* values, int row, int column) {
#pragma unroll
  for (int j = 0; j < TILE / 8; ++j) {
#pragma unroll
    for (int f = 0; f < FRAGMENTS; ++f) {
      fence();
      const float2 v = load_fragment(values + j * 8 * STAGED + f * 8, STAGED, row, column);
      fence();
#pragma unroll
      for (int m = 0; m < ROW_FRAGMENTS; ++m) {
        multiply_accumulate(x[m].sum[f], x[m].weights[j], v);
      }
    }
  }
}

// The same in a partial tile.
inline void add_values_by_segment(thread Queries* x, threadgroup const ELEMENT* values,
                                  threadgroup const long* ids, threadgroup const long* own_ids,
                                  int row, int column) {
  Runs runs = start_runs(own_ids);
  while (next_run(runs, own_ids)) {
#pragma unroll
    for (int j = 0; j < TILE / 8; ++j) {
      const bool same = ids[j * 8 + row] == runs.id;
#pragma unroll
      for (int f = 0; f < FRAGMENTS; ++f) {
        const float2 v =
            load_of_segment(values + j * 8 * STAGED + f * 8, STAGED, row, column, same);
#pragma unroll
        for (int m = 0; m < ROW_FRAGMENTS; ++m) {
          accumulate_in_run(x[m].sum[f], x[m].weights[j], v, runs, m * 8, row);
        }
      }
    }
  }
}

// Grid: (L in steps of ROWS, H, B), or a part of it that begins at p.first. Without segments or
// bias their buffers are bound to another, unread.
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
  threadgroup long own_ids[ROWS];
  threadgroup const ELEMENT* staged = reinterpret_cast<threadgroup const ELEMENT*>(tile);
  const int b = int(group.z) + p.first.z;
  const int h = int(group.y) + p.first.y;
  const int first_row = (int(group.x) + p.first.x) * ROWS;
  const int row = fragment_row(lane);
  const int column = fragment_column(lane);
  const int own = int(simdgroup_index) * SIMDGROUP_ROWS;
  device const long* ids = segment_ids + int64_t(b) * p.L;
  device const ELEMENT* k_head = k + b * p.k.b + h * p.k.h;
  device const ELEMENT* v_head = v + b * p.v.b + h * p.v.h;

  stage_ids(own_ids, ids, first_row, ROWS, p.L, thread_index);
  Queries x[ROW_FRAGMENTS];
#pragma unroll
  for (int m = 0; m < ROW_FRAGMENTS; ++m) {
    const int l = first_row + own + m * 8 + row;
    x[m].id = segment_at(ids, l, p.L);
    begin(x[m], q + b * p.q.b + h * p.q.h + l * p.q.l, p.q.d, column);
    if (HAS_BIAS) {
      begin_with_bias(x[m], bias_k + h * HEAD_DIM, bias_v + h * HEAD_DIM, p.scale * LOG2E, column);
    }
  }
  Walk walk = start_walk();
  while (next_tile(walk, map, b, first_row, p.words, p.L)) {
    threadgroup_barrier(mem_flags::mem_threadgroup);  // the last tile's values are used
    if (walk.partial) {
      stage_ids(tile_ids, ids, walk.first, TILE, p.L, thread_index);
      threadgroup_barrier(mem_flags::mem_threadgroup);
    }
    stage(tile, k_head, p.k.l, p.k.d, walk.first, walk.partial, tile_ids, thread_index);
    threadgroup_barrier(mem_flags::mem_threadgroup);
    score(x, staged, p.scale * LOG2E, row, column);
#pragma unroll
    for (int m = 0; m < ROW_FRAGMENTS; ++m) {
      weigh(x[m], tile_ids, walk.partial, column);
    }
    threadgroup_barrier(mem_flags::mem_threadgroup);  // the keys are used
    stage(tile, v_head, p.v.l, p.v.d, walk.first, walk.partial, tile_ids, thread_index);
    threadgroup_barrier(mem_flags::mem_threadgroup);
    if (walk.partial) {
      add_values_by_segment(x, staged, tile_ids, own_ids + own, row, column);
    } else {
      add_values(x, staged, row, column);
    }
  }

#pragma unroll
  for (int m = 0; m < ROW_FRAGMENTS; ++m) {
    const int l = first_row + own + m * 8 + row;
    const float total = row_sum(x[m].total);
    if (l < p.L) {
      device ELEMENT* o_row = o + b * p.o.b + h * p.o.h + l * p.o.l;
#pragma unroll
      for (int f = 0; f < FRAGMENTS; ++f) {
        store_pair(o_row, p.o.d, f * 8 + column, x[m].sum[f] / total, x[m].id);
      }
      if (column == 0) {
        const float found = x[m].largest + log2(total);
        lse[(int64_t(b) * p.H + h) * p.L + l] = x[m].id != 0l ? found : 0.0f;
      }
    }
  }
}
