// Compiled once per instruction set, with CPU_TARGET naming its namespace. See masked_attention.md.
#include <float.h>
#include <sched.h>

#include "masked_attention/masked_attention_panel.h"

namespace mlx_esm_kernels::cpu::CPU_TARGET {

namespace {

constexpr int kKeys = 64;  // keys whose scores are alive at once

int key_chunk(int D) {
  return D <= 64 ? 256 : D <= 128 ? 128 : 64;
}

// ---- before the keys ----------------------------------------------------------------------------

template <class T>
void zero_gradients(const AttentionBackward& a, const AttentionWorkspace& ws, const Group& g,
                    int i) {
  clear_row(row_of<T>(a.dq, g, i), a.D);
  clear_row(row_of<T>(a.dk, g, i), a.D);
  clear_row(row_of<T>(a.dv, g, i), a.D);
  clear_row(row_of<float>(ws.dq, g, i), a.D);
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
  Arena arena{scratch};
  float* out = arena.take(a.D);
  float* dout = arena.take(a.D);
  float* q = arena.take(a.D);
  const int64_t head = head_start(a, g);
  for (int i = occupied; i < g.length; ++i) {
    zero_gradients<T>(a, ws, g, i);
  }
  for (int i = 0; i < occupied; ++i) {
    read_row(row_of<const T>(a.out, g, i), a.out.d, a.D, out);
    read_row(row_of<const T>(a.dout, g, i), a.dout.d, a.D, dout);
    const int64_t at = head + g.positions[i];
    ws.delta[at] = dot(out, dout, a.D);
    float* dq = row_of<float>(ws.dq, g, i);
    if (a.bias_k == nullptr) {
      clear_row(dq, a.D);
    } else {
      read_row(row_of<const T>(a.q, g, i), a.q.d, a.D, q);
      add_bias(a, ws, g, {q, dout, a.lse[at], ws.delta[at]}, dq);
    }
  }
}

void prepare(const AttentionBackward& a, const AttentionWorkspace& ws, const Group& row,
             int occupied, float* scratch) {
  with_type(a.dtype, [&]<class T>(T) { prepare_rows<T>(a, ws, row, occupied, scratch); });
}

// ---- a chunk of keys ----------------------------------------------------------------------------

// What a task holds: its keys, their gradients, and one panel of queries at a time.
struct Tile {
  float *k, *v;               // (chunk, D), where the arrays are not read in place
  float *dk, *dv;             // (chunk, pitch), pitch = D in whole vectors
  float *q, *dout;            // (width, pitch), likewise
  float *qt, *dout_t, *dq_t;  // (D, width)
  float *p, *ds;              // (kKeys, width)
  float *lse, *delta;         // (width)
  float* rows;                // (kLanes, pitch)
};

Tile carve(int D, Arena& arena) {
  const int chunk = key_chunk(D);
  const int pitch = round_up(D);
  Tile t;
  t.k = arena.take(chunk * D);
  t.v = arena.take(chunk * D);
  t.dk = arena.take(chunk * pitch);
  t.dv = arena.take(chunk * pitch);
  t.q = arena.take(kWidth * pitch);
  t.dout = arena.take(kWidth * pitch);
  t.qt = arena.take(D * kWidth);
  t.dout_t = arena.take(D * kWidth);
  t.dq_t = arena.take(D * kWidth);
  t.p = arena.take(kKeys * kWidth);
  t.ds = arena.take(kKeys * kWidth);
  t.lse = arena.take(kWidth);
  t.delta = arena.take(kWidth);
  t.rows = arena.take(kLanes * pitch);
  return t;
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

template <class T>
Queries load_panel(const AttentionBackward& a, const AttentionWorkspace& ws, const Group& g,
                   int begin, const Tile& t) {
  const int pitch = round_up(a.D);
  const int count = smaller(kWidth, g.length - begin);
  const int width = round_up(count);
  const Queries x = {begin, count, width, rows_of<T>(a.q, g, begin, count, a.D, pitch, t.q),
                     rows_of<T>(a.dout, g, begin, count, a.D, pitch, t.dout)};
  transpose_from(x.q, count, a.D, a.scale * kLog2E, width, t.qt);
  transpose_from(x.dout, count, a.D, 1.0f, width, t.dout_t);
  const int64_t head = head_start(a, g);
  for (int i = 0; i < width; ++i) {
    // A lane without a query gets a log-sum-exp that makes its probabilities zero.
    t.lse[i] = i < count ? a.lse[head + g.positions[begin + i]] : FLT_MAX;
    t.delta[i] = i < count ? ws.delta[head + g.positions[begin + i]] : 0.0f;
  }
  return x;
}

// From scores and dP (both n x width) to probabilities and dS. The log-sum-exp is subtracted here:
// as the start of the score's sum it would cost a rounding at its own size in each of D steps.
void differentiate_softmax(const Tile& t, int n, int width) {
  for (int j = 0; j < width; j += kLanes) {
    const vfloat lse = load(t.lse + j);
    const vfloat delta = load(t.delta + j);
    for (int k = 0; k < n; ++k) {
      float* p = t.p + k * width + j;
      float* ds = t.ds + k * width + j;
      const vfloat probability = exp2(load(p) - lse);
      store(p, probability);
      store(ds, probability * (load(ds) - delta));
    }
  }
}

// The keys that a task owns.
struct Keys {
  int count;
  Rows k, v;
};

// Five products for one panel and all keys of the task.
void backward_panel(int D, const Keys& keys, const Queries& x, const Tile& t) {
  const int pitch = round_up(D);
  const int width = x.width;
  for (int k = 0; k < keys.count; k += kKeys) {
    const int n = smaller(kKeys, keys.count - k);
    const float* key = keys.k.row(k);
    const float* value = keys.v.row(k);
    multiply({n, width, D, key, keys.k.pitch, 1, t.qt, width, t.p, width, Start::zero});
    multiply({n, width, D, value, keys.v.pitch, 1, t.dout_t, width, t.ds, width, Start::zero});
    differentiate_softmax(t, n, width);
    float* dv = t.dv + k * pitch;
    float* dk = t.dk + k * pitch;
    const Start more = Start::accumulate;
    multiply({n, pitch, x.count, t.p, width, 1, x.dout.data, x.dout.pitch, dv, pitch, more});
    multiply({n, pitch, x.count, t.ds, width, 1, x.q.data, x.q.pitch, dk, pitch, more});
    const Start start = k == 0 ? Start::zero : Start::accumulate;
    multiply({D, width, n, key, 1, keys.k.pitch, t.ds, width, t.dq_t, width, start});
  }
}

// Chunks add to a panel of dq in ascending order, whichever threads work on them. Chunks are
// claimed in that order too, so the one that is waited for is always running.
void add_in_turn(const AttentionBackward& a, const AttentionWorkspace& ws, const Group& g,
                 const Queries& x, const Tile& t, int32_t* turn, int chunk) {
  for (int spins = 0; __atomic_load_n(turn, __ATOMIC_ACQUIRE) != chunk; ++spins) {
    if (spins > 1000) {
      sched_yield();  // the thread that is waited for may have lost its core
    }
  }
  const int pitch = round_up(a.D);
  for (int j = 0; j < x.count; j += kLanes) {
    transpose_to(t.dq_t, x.width, j, a.D, broadcast(a.scale), t.rows, pitch);
    for (int i = j; i < smaller(j + kLanes, x.count); ++i) {
      add_row(t.rows + (i - j) * pitch, a.D, row_of<float>(ws.dq, g, x.begin + i));
    }
  }
  __atomic_store_n(turn, chunk + 1, __ATOMIC_RELEASE);
}

template <class T>
void backward_keys(const AttentionBackward& a, const AttentionWorkspace& ws, const Group& g,
                   int begin, int end, int32_t* turns, float* scratch) {
  const int D = a.D;
  const int pitch = round_up(D);
  const int keys = end - begin;
  Arena arena{scratch};
  const Tile t = carve(D, arena);
  const Keys own = {keys, rows_of<T>(a.k, g, begin, keys, D, D, t.k),
                    rows_of<T>(a.v, g, begin, keys, D, D, t.v)};
  clear_row(t.dk, keys * pitch);
  clear_row(t.dv, keys * pitch);
  const int chunk = begin / key_chunk(D);
  for (int i = 0; i < g.length; i += kWidth) {
    const Queries x = load_panel<T>(a, ws, g, i, t);
    backward_panel(D, own, x, t);
    add_in_turn(a, ws, g, x, t, turns + i / kWidth, chunk);
  }
  for (int k = 0; k < keys; ++k) {
    float* dk = t.dk + k * pitch;
    for (int d = 0; d < pitch; d += kLanes) {
      store(dk + d, load(dk + d) * a.scale);
    }
    write_row(dk, D, row_of<T>(a.dk, g, begin + k));
    write_row(t.dv + k * pitch, D, row_of<T>(a.dv, g, begin + k));
  }
}

void backward(const AttentionBackward& a, const AttentionWorkspace& ws, const Group& g, int begin,
              int end, int32_t* turns, float* scratch) {
  with_type(a.dtype, [&]<class T>(T) { backward_keys<T>(a, ws, g, begin, end, turns, scratch); });
}

// ---- after the keys -----------------------------------------------------------------------------

void finish(const AttentionBackward& a, const AttentionWorkspace& ws, int b, int h) {
  with_type(a.dtype, [&]<class T>(T) {
    const float* from = static_cast<const float*>(ws.dq.data) + b * ws.dq.b + h * ws.dq.h;
    T* to = static_cast<T*>(a.dq.data) + b * a.dq.b + h * a.dq.h;
    for (int l = 0; l < a.L; ++l) {
      write_row(from + l * ws.dq.l, a.D, to + l * a.dq.l);
    }
  });
}

}  // namespace

const AttentionBackwardKernels attention_backward_kernels = {kWidth,  key_chunk, scratch_size,
                                                             prepare, backward,  finish};

}  // namespace mlx_esm_kernels::cpu::CPU_TARGET
