// Backward, dk and dv: a threadgroup owns ROWS keys of one head, a simdgroup SIMDGROUP_ROWS of
// them; tiles of queries and of dout pass by. Scores are computed transposed, keys in the rows.
// Maths: masked_attention.md.
#include "masked_attention/metal/common.metal"

// A lane's share of eight keys: one row, two columns of each fragment.
struct Keys {
#if HELD
  Element2 k[FRAGMENTS];
  Element2 v[FRAGMENTS];
#endif
  float2 dk[FRAGMENTS];  // not yet scaled
  float2 dv[FRAGMENTS];
  long id;
};

// A tile of queries, and what backward knows of each.
struct Tile {
  threadgroup const ELEMENT* q;
  threadgroup const ELEMENT* dout;
  threadgroup const float* lse;
  threadgroup const float* delta;
  threadgroup const long* ids;
};

#if HELD
inline void begin(thread Keys& x, device const ELEMENT* k_row, int64_t k_stride,
                  device const ELEMENT* v_row, int64_t v_stride, int column) {
#pragma unroll
  for (int f = 0; f < FRAGMENTS; ++f) {
    x.k[f] = load_pair(k_row, k_stride, f * 8 + column, x.id);
    x.v[f] = load_pair(v_row, v_stride, f * 8 + column, x.id);
  }
}
#else
// A simdgroup stages its own rows; the first tile's barriers stand before their use.
inline void begin(threadgroup ELEMENT* keys, threadgroup ELEMENT* values,
                  device const ELEMENT* k_row, int64_t k_stride, device const ELEMENT* v_row,
                  int64_t v_stride, long id, int row, int column) {
#pragma unroll
  for (int f = 0; f < FRAGMENTS; ++f) {
    const int at = row * STAGED + f * 8 + column;
    const Element2 k = load_pair(k_row, k_stride, f * 8 + column, id);
    const Element2 v = load_pair(v_row, v_stride, f * 8 + column, id);
    keys[at] = k.x;
    keys[at + 1] = k.y;
    values[at] = v.x;
    values[at + 1] = v.y;
  }
}
#endif

// The weight of eight queries for eight keys, and what the score's gradient is.
inline void weigh(thread const Keys& x, float2 s, float2 dweight, Tile tile, int query, float scale,
                  bool partial, thread float2& weight, thread float2& dscore) {
  const float2 lse = float2(tile.lse[query], tile.lse[query + 1]);
  const float2 delta = float2(tile.delta[query], tile.delta[query + 1]);
  const float2 exponent = s * scale - lse;
  weight = float2(fast::exp2(exponent.x), fast::exp2(exponent.y));
  dscore = weight * (dweight - delta);
  // Selected last: what a query of another segment holds may make any of the factors NaN.
  if (partial) {
    weight = select_same(weight, tile.ids, query, x.id);
    dscore = select_same(dscore, tile.ids, query, x.id);
  }
}

// Weights and dscore of the eight queries from `first` on, for all of the simdgroup's keys.
inline void score(thread const Keys* x, thread float2* weight, thread float2* dscore,
                  threadgroup const ELEMENT* keys, threadgroup const ELEMENT* values, Tile tile,
                  int first, float scale, bool partial, int row, int column) {
  float2 s[ROW_FRAGMENTS];
  float2 dweight[ROW_FRAGMENTS];
#pragma unroll
  for (int m = 0; m < ROW_FRAGMENTS; ++m) {
    s[m] = float2(0.0f);
    dweight[m] = float2(0.0f);
  }
#pragma unroll
  for (int f = 0; f < FRAGMENTS; ++f) {
    const int at = first * STAGED + f * 8;
    fence();
    const float2 q = load_transposed(tile.q + at, STAGED, row, column);
    const float2 dout = load_transposed(tile.dout + at, STAGED, row, column);
    fence();
#pragma unroll
    for (int m = 0; m < ROW_FRAGMENTS; ++m) {
#if HELD
      const float2 k = float2(x[m].k[f]);
      const float2 v = float2(x[m].v[f]);
#else
      const float2 k = load_fragment(keys + m * 8 * STAGED + f * 8, STAGED, row, column);
      const float2 v = load_fragment(values + m * 8 * STAGED + f * 8, STAGED, row, column);
#endif
      multiply_accumulate(s[m], k, q);
      multiply_accumulate(dweight[m], v, dout);
    }
  }
#pragma unroll
  for (int m = 0; m < ROW_FRAGMENTS; ++m) {
    weigh(x[m], s[m], dweight[m], tile, first + column, scale, partial, weight[m], dscore[m]);
  }
}

inline void add_queries(thread Keys* x, thread const float2* weight, thread const float2* dscore,
                        Tile tile, int first, int row, int column) {
#pragma unroll
  for (int f = 0; f < FRAGMENTS; ++f) {
    const int at = first * STAGED + f * 8;
    fence();
    const float2 dout = load_fragment(tile.dout + at, STAGED, row, column);
    const float2 q = load_fragment(tile.q + at, STAGED, row, column);
    fence();
#pragma unroll
    for (int m = 0; m < ROW_FRAGMENTS; ++m) {
      multiply_accumulate(x[m].dv[f], weight[m], dout);
      multiply_accumulate(x[m].dk[f], dscore[m], q);
    }
  }
}

// The same in a partial tile.
inline void add_queries_by_segment(thread Keys* x, thread const float2* weight,
                                   thread const float2* dscore, Tile tile, int first,
                                   threadgroup const long* own_ids, int row, int column) {
  Runs runs = start_runs(own_ids);
  while (next_run(runs, own_ids)) {
    const bool same = tile.ids[first + row] == runs.id;
#pragma unroll
    for (int f = 0; f < FRAGMENTS; ++f) {
      const int at = first * STAGED + f * 8;
      const float2 dout = load_of_segment(tile.dout + at, STAGED, row, column, same);
      const float2 q = load_of_segment(tile.q + at, STAGED, row, column, same);
#pragma unroll
      for (int m = 0; m < ROW_FRAGMENTS; ++m) {
        accumulate_in_run(x[m].dv[f], weight[m], dout, runs, m * 8, row);
        accumulate_in_run(x[m].dk[f], dscore[m], q, runs, m * 8, row);
      }
    }
  }
}

// lse and delta of a tile of queries; 0 beyond L.
inline void stage_rows(threadgroup float* tile_lse, threadgroup float* tile_delta,
                       device const float* lse, device const float* delta, int first, int L,
                       uint thread_index) {
  if (thread_index < uint(TILE)) {
    const int l = first + int(thread_index);
    float row_lse = 0.0f;
    float row_delta = 0.0f;
    if (l < L) {
      row_lse = lse[l];
      row_delta = delta[l];
    }
    tile_lse[thread_index] = row_lse;
    tile_delta[thread_index] = row_delta;
  }
}

// Grid: (L in steps of ROWS, H, B), or a part of it that begins at p.first. Without segments their
// buffers are bound to another, unread.
[[kernel, max_total_threads_per_threadgroup(THREADS)]] void masked_attention_bwd_dkv(
    device const ELEMENT* q [[buffer(0)]], device const ELEMENT* k [[buffer(1)]],
    device const ELEMENT* v [[buffer(2)]], device const float* lse [[buffer(3)]],
    device const float* delta [[buffer(4)]], device const ELEMENT* dout [[buffer(5)]],
    device ELEMENT* dk [[buffer(6)]], device ELEMENT* dv [[buffer(7)]],
    constant AttentionBackwardParams& p [[buffer(8)]], device const long* segment_ids [[buffer(9)]],
    device const uint* map [[buffer(10)]], uint3 group [[threadgroup_position_in_grid]],
    uint thread_index [[thread_index_in_threadgroup]],
    uint simdgroup_index [[simdgroup_index_in_threadgroup]],
    uint lane [[thread_index_in_simdgroup]]) {
  threadgroup Element4 queries[TILE * STAGED / 4];
  threadgroup Element4 douts[TILE * STAGED / 4];
  threadgroup float tile_lse[TILE];
  threadgroup float tile_delta[TILE];
  threadgroup long tile_ids[TILE];
  threadgroup long own_ids[ROWS];
  const int b = int(group.z) + p.first.z;
  const int h = int(group.y) + p.first.y;
  const int first_row = (int(group.x) + p.first.x) * ROWS;
  const int row = fragment_row(lane);
  const int column = fragment_column(lane);
  const int own = int(simdgroup_index) * SIMDGROUP_ROWS;
  const int64_t head = (int64_t(b) * p.H + h) * p.L;
  device const long* ids = segment_ids + int64_t(b) * p.L;
  device const ELEMENT* k_head = k + b * p.k.b + h * p.k.h;
  device const ELEMENT* v_head = v + b * p.v.b + h * p.v.h;
#if HELD
  threadgroup const ELEMENT* keys = reinterpret_cast<threadgroup const ELEMENT*>(queries);
  threadgroup const ELEMENT* values = keys;
#else
  threadgroup Element4 own_keys[ROWS * STAGED / 4];
  threadgroup Element4 own_values[ROWS * STAGED / 4];
  threadgroup ELEMENT* keys = reinterpret_cast<threadgroup ELEMENT*>(own_keys) + own * STAGED;
  threadgroup ELEMENT* values = reinterpret_cast<threadgroup ELEMENT*>(own_values) + own * STAGED;
#endif

  stage_ids(own_ids, ids, first_row, ROWS, p.L, thread_index);
  Keys x[ROW_FRAGMENTS];
#pragma unroll
  for (int m = 0; m < ROW_FRAGMENTS; ++m) {
    const int l = first_row + own + m * 8 + row;
    device const ELEMENT* k_row = k_head + l * p.k.l;
    device const ELEMENT* v_row = v_head + l * p.v.l;
    x[m].id = segment_at(ids, l, p.L);
#pragma unroll
    for (int f = 0; f < FRAGMENTS; ++f) {
      x[m].dk[f] = float2(0.0f);
      x[m].dv[f] = float2(0.0f);
    }
#if HELD
    begin(x[m], k_row, p.k.d, v_row, p.v.d, column);
#else
    begin(keys + m * 8 * STAGED, values + m * 8 * STAGED, k_row, p.k.d, v_row, p.v.d, x[m].id, row,
          column);
#endif
  }
  Tile tile;
  tile.q = reinterpret_cast<threadgroup const ELEMENT*>(queries);
  tile.dout = reinterpret_cast<threadgroup const ELEMENT*>(douts);
  tile.lse = tile_lse;
  tile.delta = tile_delta;
  tile.ids = tile_ids;

  Walk walk = start_walk();
  while (next_tile(walk, map, b, first_row, p.words, p.L)) {
    threadgroup_barrier(mem_flags::mem_threadgroup);  // the last tile is used
    stage_rows(tile_lse, tile_delta, lse + head, delta + head, walk.first, p.L, thread_index);
    if (walk.partial) {
      stage_ids(tile_ids, ids, walk.first, TILE, p.L, thread_index);
      threadgroup_barrier(mem_flags::mem_threadgroup);
    }
    stage(queries, q + b * p.q.b + h * p.q.h, p.q.l, p.q.d, walk.first, walk.partial, tile_ids,
          thread_index);
    stage(douts, dout + b * p.dout.b + h * p.dout.h, p.dout.l, p.dout.d, walk.first, walk.partial,
          tile_ids, thread_index);
    threadgroup_barrier(mem_flags::mem_threadgroup);
#pragma unroll
    for (int j = 0; j < TILE; j += 8) {
      float2 weight[ROW_FRAGMENTS];
      float2 dscore[ROW_FRAGMENTS];
      score(x, weight, dscore, keys, values, tile, j, p.scale * LOG2E, walk.partial, row, column);
      if (walk.partial) {
        add_queries_by_segment(x, weight, dscore, tile, j, own_ids + own, row, column);
      } else {
        add_queries(x, weight, dscore, tile, j, row, column);
      }
    }
  }
#pragma unroll
  for (int m = 0; m < ROW_FRAGMENTS; ++m) {
    const int l = first_row + own + m * 8 + row;
    if (l < p.L) {
      device ELEMENT* dk_row = dk + b * p.dk.b + h * p.dk.h + l * p.dk.l;
      device ELEMENT* dv_row = dv + b * p.dv.b + h * p.dv.h + l * p.dv.l;
#pragma unroll
      for (int f = 0; f < FRAGMENTS; ++f) {
        store_pair(dk_row, p.dk.d, f * 8 + column, x[m].dk[f] * p.scale, x[m].id);
        store_pair(dv_row, p.dv.d, f * 8 + column, x[m].dv[f], x[m].id);
      }
    }
  }
}
