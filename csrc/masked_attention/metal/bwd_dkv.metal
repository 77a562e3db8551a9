// Backward, dk and dv: a threadgroup owns ROWS keys of one head, a simdgroup eight of them; tiles
// of queries and of dout pass by. Scores are computed transposed, keys in the rows. Maths:
// masked_attention.md. The host defines HELD: 1 where a simdgroup's keys and values fit its
// registers beside their gradients, 0 where they lie in threadgroup memory.
#include "masked_attention/metal/common.metal"

// A lane's share of its simdgroup's eight keys: one row, two columns of each fragment.
struct Keys {
#if HELD
  float2 k[FRAGMENTS];
  float2 v[FRAGMENTS];
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
// A simdgroup stages its own eight rows; the first tile's barriers stand before their use.
inline void begin(threadgroup ELEMENT* keys, threadgroup ELEMENT* values,
                  device const ELEMENT* k_row, int64_t k_stride, device const ELEMENT* v_row,
                  int64_t v_stride, long id, int row, int column) {
#pragma unroll
  for (int f = 0; f < FRAGMENTS; ++f) {
    const int at = row * STAGED + f * 8 + column;
    const float2 k = load_pair(k_row, k_stride, f * 8 + column, id);
    const float2 v = load_pair(v_row, v_stride, f * 8 + column, id);
    keys[at] = ELEMENT(k.x);
    keys[at + 1] = ELEMENT(k.y);
    values[at] = ELEMENT(v.x);
    values[at + 1] = ELEMENT(v.y);
  }
}
#endif

inline void add_tile(thread Keys& x, threadgroup const ELEMENT* keys,
                     threadgroup const ELEMENT* values, Tile tile, float scale, bool partial,
                     int row, int column) {
#pragma unroll
  for (int j = 0; j < TILE / 8; ++j) {
    float2 s = float2(0.0f);
    float2 dweight = float2(0.0f);
#pragma unroll
    for (int f = 0; f < FRAGMENTS; ++f) {
#if HELD
      const float2 k = x.k[f];
      const float2 v = x.v[f];
#else
      const float2 k = load_fragment(keys + f * 8, STAGED, row, column);
      const float2 v = load_fragment(values + f * 8, STAGED, row, column);
#endif
      const int at = j * 8 * STAGED + f * 8;
      multiply_accumulate(s, k, load_transposed(tile.q + at, STAGED, row, column));
      multiply_accumulate(dweight, v, load_transposed(tile.dout + at, STAGED, row, column));
    }
    const int query = j * 8 + column;
    const float2 lse = float2(tile.lse[query], tile.lse[query + 1]);
    const float2 delta = float2(tile.delta[query], tile.delta[query + 1]);
    const float2 exponent = s * (scale * LOG2E) - lse;
    float2 weight = float2(fast::exp2(exponent.x), fast::exp2(exponent.y));
    if (partial) {
      weight = select_same(weight, tile.ids, query, x.id);
    }
    const float2 dscore = weight * (dweight - delta);
#pragma unroll
    for (int f = 0; f < FRAGMENTS; ++f) {
      const int at = j * 8 * STAGED + f * 8;
      multiply_accumulate(x.dv[f], weight, load_fragment(tile.dout + at, STAGED, row, column));
      multiply_accumulate(x.dk[f], dscore, load_fragment(tile.q + at, STAGED, row, column));
    }
  }
}

// lse and delta of a tile of queries; 0 beyond L.
inline void stage_rows(threadgroup float* tile_lse, threadgroup float* tile_delta,
                       device const float* lse, device const float* delta, int first, int L,
                       uint thread_index) {
  if (thread_index < uint(TILE)) {
    const int l = first + int(thread_index);
    tile_lse[thread_index] = l < L ? lse[l] : 0.0f;
    tile_delta[thread_index] = l < L ? delta[l] : 0.0f;
  }
}

// Grid: (L in steps of ROWS, H, B). Without segments their buffers are bound to another, unread.
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
  const int b = int(group.z);
  const int h = int(group.y);
  const int first_row = int(group.x) * ROWS;
  const int row = fragment_row(lane);
  const int column = fragment_column(lane);
  const int l = first_row + int(simdgroup_index) * 8 + row;
  const int64_t head = (int64_t(b) * p.H + h) * p.L;
  device const long* ids = segment_ids + int64_t(b) * p.L;
  device const ELEMENT* k_row = k + b * p.k.b + h * p.k.h + l * p.k.l;
  device const ELEMENT* v_row = v + b * p.v.b + h * p.v.h + l * p.v.l;

  Keys x;
  x.id = segment_at(ids, l, p.L);
#pragma unroll
  for (int f = 0; f < FRAGMENTS; ++f) {
    x.dk[f] = float2(0.0f);
    x.dv[f] = float2(0.0f);
  }
#if HELD
  begin(x, k_row, p.k.d, v_row, p.v.d, column);
  threadgroup const ELEMENT* keys = reinterpret_cast<threadgroup const ELEMENT*>(queries);
  threadgroup const ELEMENT* values = keys;
#else
  threadgroup Element4 own_keys[ROWS * STAGED / 4];
  threadgroup Element4 own_values[ROWS * STAGED / 4];
  const int own = int(simdgroup_index) * 8 * STAGED;
  threadgroup ELEMENT* keys = reinterpret_cast<threadgroup ELEMENT*>(own_keys) + own;
  threadgroup ELEMENT* values = reinterpret_cast<threadgroup ELEMENT*>(own_values) + own;
  begin(keys, values, k_row, p.k.d, v_row, p.v.d, x.id, row, column);
#endif
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
      stage_ids(tile_ids, ids, walk.first, p.L, thread_index);
      threadgroup_barrier(mem_flags::mem_threadgroup);
    }
    stage(queries, q + b * p.q.b + h * p.q.h, p.q.l, p.q.d, walk.first, walk.partial, tile_ids,
          thread_index);
    stage(douts, dout + b * p.dout.b + h * p.dout.h, p.dout.l, p.dout.d, walk.first, walk.partial,
          tile_ids, thread_index);
    threadgroup_barrier(mem_flags::mem_threadgroup);
    add_tile(x, keys, values, tile, p.scale, walk.partial, row, column);
  }
  if (l < p.L) {
    device ELEMENT* dk_row = dk + b * p.dk.b + h * p.dk.h + l * p.dk.l;
    device ELEMENT* dv_row = dv + b * p.dv.b + h * p.dv.h + l * p.dv.l;
#pragma unroll
    for (int f = 0; f < FRAGMENTS; ++f) {
      store_pair(dk_row, p.dk.d, f * 8 + column, x.dk[f] * p.scale, x.id);
      store_pair(dv_row, p.dv.d, f * 8 + column, x.dv[f], x.id);
    }
  }
}
