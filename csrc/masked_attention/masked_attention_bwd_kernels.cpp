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
  float *k, *v;               // (chunk, D)
  float *dk, *dv;             // (chunk, pitch), pitch = D in whole vectors
  float *q, *dout;            // (width, pitch)
  float *qt, *dout_t, *dq_t;  // (D, width)
  float *p, *ds;              // (kKeys, width)
  float *lse, *delta;         // (width)
  float* row;                 // (pitch)
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
  t.row = arena.take(pitch);
  return t;
}

int64_t scratch_size(int D) {
  Arena arena{nullptr};
  carve(D, arena);
  return arena.used;
}

template <class T>
void load_panel(const AttentionBackward& a, const AttentionWorkspace& ws, const Group& g, int begin,
                int count, int width, const Tile& t) {
  const int pitch = round_up(a.D);
  gather<T>(a.q, g, begin, count, a.D, t.q, pitch);
  gather<T>(a.dout, g, begin, count, a.D, t.dout, pitch);
  gather_transposed<T>(a.q, g, begin, count, a.D, a.scale * kLog2E, width, t.qt, t.row);
  gather_transposed<T>(a.dout, g, begin, count, a.D, 1.0f, width, t.dout_t, t.row);
  const int64_t head = head_start(a, g);
  for (int i = 0; i < width; ++i) {
    // A lane without a query gets a log-sum-exp that makes its probabilities zero.
    t.lse[i] = i < count ? a.lse[head + g.positions[begin + i]] : FLT_MAX;
    t.delta[i] = i < count ? ws.delta[head + g.positions[begin + i]] : 0.0f;
  }
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

// Five products for one panel and all keys of the task.
void backward_panel(int D, int keys, int count, int width, const Tile& t) {
  const int pitch = round_up(D);
  for (int k = 0; k < keys; k += kKeys) {
    const int n = smaller(kKeys, keys - k);
    const float* key = t.k + k * D;
    const float* value = t.v + k * D;
    multiply({n, width, D, key, D, 1, t.qt, width, t.p, width, Start::zero});
    multiply({n, width, D, value, D, 1, t.dout_t, width, t.ds, width, Start::zero});
    differentiate_softmax(t, n, width);
    float* dv = t.dv + k * pitch;
    float* dk = t.dk + k * pitch;
    multiply({n, pitch, count, t.p, width, 1, t.dout, pitch, dv, pitch, Start::accumulate});
    multiply({n, pitch, count, t.ds, width, 1, t.q, pitch, dk, pitch, Start::accumulate});
    const Start start = k == 0 ? Start::zero : Start::accumulate;
    multiply({D, width, n, key, 1, D, t.ds, width, t.dq_t, width, start});
  }
}

// Chunks add to a panel of dq in ascending order, whichever threads work on them. Chunks are
// claimed in that order too, so the one that is waited for is always running.
void add_in_turn(const AttentionBackward& a, const AttentionWorkspace& ws, const Group& g,
                 int begin, int count, int width, const float* dq_t, int32_t* turn, int chunk) {
  for (int spins = 0; __atomic_load_n(turn, __ATOMIC_ACQUIRE) != chunk; ++spins) {
    if (spins > 1000) {
      sched_yield();  // the thread that is waited for may have lost its core
    }
  }
  for (int i = 0; i < count; ++i) {
    float* dq = row_of<float>(ws.dq, g, begin + i);
    for (int d = 0; d < a.D; ++d) {
      dq[d] += a.scale * dq_t[d * width + i];
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
  gather<T>(a.k, g, begin, keys, D, t.k, D);
  gather<T>(a.v, g, begin, keys, D, t.v, D);
  clear_row(t.dk, keys * pitch);
  clear_row(t.dv, keys * pitch);
  const int chunk = begin / key_chunk(D);
  for (int i = 0; i < g.length; i += kWidth) {
    const int count = smaller(kWidth, g.length - i);
    const int width = round_up(count);
    load_panel<T>(a, ws, g, i, count, width, t);
    backward_panel(D, keys, count, width, t);
    add_in_turn(a, ws, g, i, count, width, t.dq_t, turns + i / kWidth, chunk);
  }
  for (int k = 0; k < keys; ++k) {
    for (int d = 0; d < D; ++d) {
      t.row[d] = t.dk[k * pitch + d] * a.scale;
    }
    write_row(t.row, D, row_of<T>(a.dk, g, begin + k));
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
