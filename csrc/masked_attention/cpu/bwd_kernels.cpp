// Compiled once per instruction set, with CPU_TARGET naming its namespace. See masked_attention.md.
#include <float.h>
#include <sched.h>

#include "masked_attention/cpu/panel.h"

namespace mlx_esm_kernels::cpu::CPU_TARGET {

namespace {

constexpr int kKeys = 64;  // keys whose scores are alive at once

int key_chunk(int D) {
  return D <= 64 ? 256 : D <= 128 ? 128 : 64;
}

// ---- before the keys ----------------------------------------------------------------------------

template <class T>
void zero_gradients(const AttentionBackward& a, const Group& g, int i) {
  clear_row(row_of<T>(a.dq, g, i), a.D);
  clear_row(row_of<T>(a.dk, g, i), a.D);
  clear_row(row_of<T>(a.dv, g, i), a.D);
}

// One query, as float32.
struct Query {
  const float *q, *dout;
  float lse, delta;
};

// The extra key of one query: starts dq and adds to the bias gradients.
void add_bias(const AttentionBackward& a, const AttentionWorkspace& ws, const Group& g,
              const Query& query, float* dq) {
  const float* bias_k = a.bias_k + g.h * a.D;
  const float* bias_v = a.bias_v + g.h * a.D;
  const int64_t at = (static_cast<int64_t>(g.b) * a.H + g.h) * a.D;
  float* dbias_k = ws.partial_bias_k + at;
  float* dbias_v = ws.partial_bias_v + at;
  const float score = dot(query.q, bias_k, a.D) * a.scale * kLog2E;
  const float probability = exp2(broadcast(score - query.lse))[0];
  const float ds = probability * (dot(query.dout, bias_v, a.D) - query.delta) * a.scale;
  for (int d = 0; d < a.D; ++d) {
    dq[d] = ds * bias_k[d];
    dbias_k[d] += ds * query.q[d];
    dbias_v[d] += probability * query.dout[d];
  }
}

template <class T>
void prepare_rows(const AttentionBackward& a, const AttentionWorkspace& ws, const Group& g,
                  int occupied, float* scratch) {
  for (int i = occupied; i < g.length; ++i) {
    zero_gradients<T>(a, g, i);
  }
  if (a.bias_k == nullptr) {
    return;
  }
  Arena arena{scratch};
  float* out = arena.take(a.D);
  float* dout = arena.take(a.D);
  float* q = arena.take(a.D);
  const int64_t head = head_start(a, g);
  for (int i = 0; i < occupied; ++i) {
    read_row(row_of<const T>(a.out, g, i), a.out.d, a.D, out);
    read_row(row_of<const T>(a.dout, g, i), a.dout.d, a.D, dout);
    read_row(row_of<const T>(a.q, g, i), a.q.d, a.D, q);
    const float lse = a.lse[head + g.positions[i]];
    add_bias(a, ws, g, {q, dout, lse, dot(out, dout, a.D)}, row_of<float>(ws.dq, g, i));
  }
}

void prepare(const AttentionBackward& a, const AttentionWorkspace& ws, const Group& row,
             int occupied, float* scratch) {
  with_type(a.dtype, [&]<class T>(T) { prepare_rows<T>(a, ws, row, occupied, scratch); });
}

// ---- a chunk of keys ----------------------------------------------------------------------------

// What a task's scratch holds: its keys, their gradients, and one panel of queries at a time.
struct Buffers {
  float *k, *v;               // (chunk, D), where the arrays are not read in place
  float* k_factors;           // likewise
  float *dk, *dv;             // (chunk, pitch), pitch = D in whole vectors
  float *q, *out, *dout;      // (width, pitch), likewise
  float *qt, *dout_t, *dq_t;  // (D, width)
  float *p, *ds;              // (kKeys, width)
  float *lse, *delta;         // (width), delta times scale
  float* rows;                // (kLanes, pitch)
};

Buffers carve(int D, Arena& arena) {
  const int chunk = key_chunk(D);
  const int pitch = round_up(D);
  Buffers b;
  b.k = arena.take(chunk * D);
  b.v = arena.take(chunk * D);
  b.k_factors = arena.take(chunk * D);
  b.dk = arena.take(chunk * pitch);
  b.dv = arena.take(chunk * pitch);
  b.q = arena.take(kWidth * pitch);
  b.out = arena.take(kWidth * pitch);
  b.dout = arena.take(kWidth * pitch);
  b.qt = arena.take(D * kWidth);
  b.dout_t = arena.take(D * kWidth);
  b.dq_t = arena.take(D * kWidth);
  b.p = arena.take(kKeys * kWidth);
  b.ds = arena.take(kKeys * kWidth);
  b.lse = arena.take(kWidth);
  b.delta = arena.take(kWidth);
  b.rows = arena.take(kLanes * pitch);
  return b;
}

int64_t scratch_size(int D) {
  Arena arena{nullptr};
  carve(D, arena);
  return arena.used;
}

// One panel of queries.
struct Queries {
  int begin, count, width;  // width: count rounded up to whole vectors
  Rows q, dout;
};

// Dot products of rows of x and y times `scale`, each in a fixed order: lanes first, then across
// lanes. Zero from `count` to `width`.
void dot_rows(const Rows& x, const Rows& y, int count, int pitch, float scale, int width,
              float* out) {
  for (int i = 0; i < width; i += kLanes) {
    vfloat sums[kLanes] = {};
    const auto add_products = [&](int r) {
      for (int d = 0; d < pitch; d += kLanes) {
        sums[r] += load(x.row(i + r) + d) * load(y.row(i + r) + d);
      }
    };
    if (i + kLanes <= count) {
#pragma GCC unroll 16
      for (int r = 0; r < kLanes; ++r) {
        add_products(r);
      }
    } else {
      for (int r = 0; r < count - i; ++r) {
        add_products(r);
      }
    }
    transpose(sums);
    vfloat total = sums[0];
    for (int c = 1; c < kLanes; ++c) {
      total += sums[c];
    }
    store(out + i, total * scale);
  }
}

template <class T>
Queries load_panel(const AttentionBackward& a, const Group& g, Range range, const Buffers& b) {
  const int pitch = round_up(a.D);
  const int count = range.end - range.begin;
  const int width = round_up(count);
  constexpr Element kind = kElement<T>;
  const auto rows = [&](const View& x, float* copy) {
    return rows_of<T>(x, g, range.begin, count, a.D, pitch, copy);
  };
  const Queries x = {range.begin, count, width, rows(a.q, b.q), rows(a.dout, b.dout)};
  // Memory of b.out, which is not there yet, serves twice.
  const auto transpose_into = [&](const Rows& wide, const View& view, float factor, float* out) {
    const Rows factors = kind == Element::float32
                             ? wide
                             : factors_of<kind, T>(view, g, range.begin, count, a.D, b.out);
    transpose_factors<kind>(factors, count, a.D, factor, width, out);
  };
  transpose_into(x.q, a.q, a.scale * kLog2E, b.qt);
  transpose_into(x.dout, a.dout, a.scale, b.dout_t);
  dot_rows(rows(a.out, b.out), x.dout, count, pitch, a.scale, width, b.delta);
  const float* lse = a.lse + head_start(a, g);
  for (int i = 0; i < width; ++i) {
    // A lane without a query gets a log-sum-exp that makes its probabilities vanish.
    b.lse[i] = i < count ? lse[g.positions[range.begin + i]] : FLT_MAX;
  }
  return x;
}

// From scores to probabilities while they are in registers. The log-sum-exp is subtracted here: as
// the start of the score's sum it would cost a rounding at its own size in each of D steps.
template <Element kind>
struct Probabilities {
  const float* lse;
  float factor;

  template <int Rows, int Vectors>
  [[gnu::always_inline]] void operator()(vfloat (&tile)[Rows][Vectors], int, int j) const {
#pragma GCC unroll 4
    for (int v = 0; v < Vectors; ++v) {
      const vfloat row = load(lse + j + v * kLanes);
#pragma GCC unroll 12
      for (int r = 0; r < Rows; ++r) {
        tile[r][v] = exp2(scaled<kind>(tile[r][v], factor) - row);
      }
    }
  }
};

// From dP to scale dS, likewise: dP and delta bear the scale, so that dq and dk need none.
template <Element kind>
struct ScoreGradients {
  const float *p, *delta;
  float scale;
  int width;

  template <int Rows, int Vectors>
  [[gnu::always_inline]] void operator()(vfloat (&tile)[Rows][Vectors], int i, int j) const {
#pragma GCC unroll 4
    for (int v = 0; v < Vectors; ++v) {
      const int column = j + v * kLanes;
      const vfloat row = load(delta + column);
#pragma GCC unroll 12
      for (int r = 0; r < Rows; ++r) {
        const vfloat dp = scaled<kind>(tile[r][v], scale);
        tile[r][v] = load(p + (i + r) * width + column) * (dp - row);
      }
    }
  }
};

// The keys that a task owns.
struct Keys {
  int count;
  Rows k;                     // float32
  Rows k_factors, v_factors;  // of scores and dP
};

// Five products for one panel and all keys of the task.
template <class T>
void backward_panel(int D, float scale, const Keys& keys, const Queries& x, const Buffers& b,
                    Ahead<T>& ahead) {
  constexpr Element kind = kElement<T>;
  const int pitch = round_up(D);
  const int width = x.width;
  const int blocks = (keys.count + kKeys - 1) / kKeys;
  for (int block = 0; block < blocks; ++block) {
    const Range range = piece(0, keys.count, block, blocks);
    const int n = range.end - range.begin;
    const float* key = keys.k.row(range.begin);
    const auto of_inputs = [&](const Rows& left, const float* right, float* out) {
      return Product{n,   width, elements<kind>(D), left.row(range.begin), left.pitch, right, width,
                     out, width, Start::zero};
    };
    multiply<Left::straight, kind>(of_inputs(keys.k_factors, b.qt, b.p), ahead,
                                   Probabilities<kind>{b.lse, scale * kLog2E});
    multiply<Left::straight, kind>(of_inputs(keys.v_factors, b.dout_t, b.ds), ahead,
                                   ScoreGradients<kind>{b.p, b.delta, scale, width});
    float* dv = b.dv + range.begin * pitch;
    float* dk = b.dk + range.begin * pitch;
    const Start more = x.begin == 0 ? Start::zero : Start::accumulate;
    multiply({n, pitch, x.count, b.p, width, x.dout.data, x.dout.pitch, dv, pitch, more}, ahead);
    multiply({n, pitch, x.count, b.ds, width, x.q.data, x.q.pitch, dk, pitch, more}, ahead);
    const Start start = block == 0 ? Start::zero : Start::accumulate;
    multiply<Left::transposed>({D, width, n, key, keys.k.pitch, b.ds, width, b.dq_t, width, start},
                               ahead);
  }
}

// Chunks add to a panel of dq in ascending order, whichever threads work on them. Chunks are
// claimed in that order too, so the one that is waited for is always running.
template <class T>
void add_in_turn(const AttentionBackward& a, const AttentionWorkspace& ws, const ChunkTask& task,
                 const Queries& x, const Buffers& b, int32_t* turn) {
  const Group& g = task.group;
  for (int spins = 0; __atomic_load_n(turn, __ATOMIC_ACQUIRE) != task.chunk; ++spins) {
    if (spins > 1000) {
      sched_yield();  // the thread that is waited for may have lost its core
    }
  }
  const bool started = task.chunk > 0 || a.bias_k != nullptr;
  const bool last = task.chunk == task.chunks - 1;
  const int pitch = round_up(a.D);
  for (int j = 0; j < x.count; j += kLanes) {
    const int count = smaller(kLanes, x.count - j);
    if (last && !started && vectors_in_place<T>(g, x.begin + j, count, a.D)) {
      float* row = row_of<float>(a.dq, g, x.begin + j);
      transpose_to(b.dq_t, x.width, j, a.D, broadcast(1), row, a.dq.l);
      continue;
    }
    transpose_to(b.dq_t, x.width, j, a.D, broadcast(1), b.rows, pitch);
    for (int i = 0; started && i < count; ++i) {
      add_row(row_of<float>(ws.dq, g, x.begin + j + i), a.D, b.rows + i * pitch);
    }
    if (last) {
      write_rows<T>(b.rows, pitch, a.dq, g, x.begin + j, count, a.D);
    } else {
      write_rows<float>(b.rows, pitch, ws.dq, g, x.begin + j, count, a.D);
    }
  }
  __atomic_store_n(turn, task.chunk + 1, __ATOMIC_RELEASE);
}

// What is read after panel i: the next one, or the next task's keys and first queries.
template <class T>
Ahead<T> ahead_of(const AttentionBackward& a, const Group& g, int i, int panels,
                  const ChunkTask* next, int calls) {
  Ahead<T> ahead(a.D);
  const auto add_queries = [&](const Group& group, Range rows) {
    ahead.add(a.out, group, rows.begin, rows.end);
    ahead.add(a.dout, group, rows.begin, rows.end);
    ahead.add(a.q, group, rows.begin, rows.end);
  };
  if (i + 1 < panels) {
    add_queries(g, panel(0, g.length, i + 1, panels));
  } else if (next != nullptr) {
    add_queries(next->group, panel(0, next->group.length, 0, panels_of(next->group.length)));
    ahead.add(a.v, next->group, next->begin, next->end);
    ahead.add(a.k, next->group, next->begin, next->end);
  }
  ahead.spread(calls);
  return ahead;
}

template <class T>
void backward_keys(const AttentionBackward& a, const AttentionWorkspace& ws, const ChunkTask& task,
                   const ChunkTask* next, float* scratch) {
  const int D = a.D;
  const int pitch = round_up(D);
  const Group& g = task.group;
  const int keys = task.end - task.begin;
  Arena arena{scratch};
  const Buffers b = carve(D, arena);
  constexpr Element kind = kElement<T>;
  const Rows wide = rows_of<T>(a.k, g, task.begin, keys, D, D, b.k);
  const Keys own = {keys, wide,
                    kind == Element::float32
                        ? wide
                        : factors_of<kind, T>(a.k, g, task.begin, keys, D, b.k_factors),
                    factors_of<kind, T>(a.v, g, task.begin, keys, D, b.v)};
  const int panels = panels_of(g.length);
  for (int i = 0; i < panels; ++i) {
    const Queries x = load_panel<T>(a, g, panel(0, g.length, i, panels), b);
    Ahead<T> ahead = ahead_of<T>(a, g, i, panels, next, (4 * keys + D) / 8);
    backward_panel(D, a.scale, own, x, b, ahead);
    add_in_turn<T>(a, ws, task, x, b, task.turns + i);
  }
  write_rows<T>(b.dk, pitch, a.dk, g, task.begin, keys, D);
  write_rows<T>(b.dv, pitch, a.dv, g, task.begin, keys, D);
}

void backward(const AttentionBackward& a, const AttentionWorkspace& ws, const ChunkTask& task,
              const ChunkTask* next, float* scratch) {
  with_type(a.dtype, [&]<class T>(T) { backward_keys<T>(a, ws, task, next, scratch); });
}

}  // namespace

const AttentionBackwardKernels attention_backward_kernels = {kWidth, key_chunk, scratch_size,
                                                             prepare, backward};

}  // namespace mlx_esm_kernels::cpu::CPU_TARGET
