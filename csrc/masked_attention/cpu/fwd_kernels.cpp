// Compiled once per instruction set, with CPU_TARGET naming its namespace. See masked_attention.md.
#include <float.h>

#include "masked_attention/cpu/panel.h"

namespace mlx_esm_kernels::cpu::CPU_TARGET {

namespace {

constexpr int kPanels = 4;  // panels that share a block of keys
constexpr int kKeys = 128;  // keys of a block

// What sums of weights relative to 0 may be.
constexpr float kLow = 0x1p-24f;
constexpr float kHigh = 0x1p40f;

struct Panel {
  int begin, count, width;  // width: count rounded up to whole vectors
  float *qt, *ot;           // (D, width): scaled queries, unnormalised output
  float *max, *sum;         // (width)
};

// What weights of a row are relative to.
enum class Reference { zero, running_maximum };

// Without a bias the row starts empty, with an output that the first product overwrites; with one
// it starts with that single key seen.
void start(const AttentionForward& f, const Group& g, Reference reference, Panel& p) {
  const bool relative_to_zero = reference == Reference::zero;
  const float* bias_k = f.bias_k == nullptr ? nullptr : f.bias_k + g.h * f.D;
  if (bias_k != nullptr) {
    multiply({1, p.width, f.D, bias_k, 0, p.qt, p.width, p.max, p.width, Start::zero});
  }
  for (int i = 0; i < p.width; i += kLanes) {
    const vfloat score = bias_k == nullptr ? broadcast(-FLT_MAX) : load(p.max + i);
    const vfloat weight = relative_to_zero ? exp2(score) : broadcast(1);
    store(p.max + i, relative_to_zero ? vfloat{} : score);
    store(p.sum + i, bias_k == nullptr ? vfloat{} : weight);
  }
  for (int d = 0; bias_k != nullptr && d < f.D; ++d) {
    for (int i = 0; i < p.width; i += kLanes) {
      store(p.ot + d * p.width + i, f.bias_v[g.h * f.D + d] * load(p.sum + i));
    }
  }
}

// One step of the online softmax: turns scores (keys x width) into probabilities relative to the
// new maximum and rescales what was summed before in `rows` rows of output. All vectors of a panel
// go together: one alone would wait for its own last maximum and sum.
template <int Vectors>
void online_softmax(Panel& p, int rows, int keys, float* scores) {
  constexpr int kPitch = Vectors * kLanes;
  vfloat biggest[Vectors], sum[Vectors], shrink[Vectors];
#pragma GCC unroll 8
  for (int v = 0; v < Vectors; ++v) {
    biggest[v] = load(p.max + v * kLanes);
  }
  for (int k = 0; k < keys; ++k) {
#pragma GCC unroll 8
    for (int v = 0; v < Vectors; ++v) {
      biggest[v] = max(biggest[v], load(scores + k * kPitch + v * kLanes));
    }
  }
#pragma GCC unroll 8
  for (int v = 0; v < Vectors; ++v) {
    shrink[v] = exp2(load(p.max + v * kLanes) - biggest[v]);
    sum[v] = load(p.sum + v * kLanes) * shrink[v];
  }
  for (int k = 0; k < keys; ++k) {
#pragma GCC unroll 8
    for (int v = 0; v < Vectors; ++v) {
      float* s = scores + k * kPitch + v * kLanes;
      const vfloat probability = exp2(load(s) - biggest[v]);
      store(s, probability);
      sum[v] += probability;
    }
  }
  for (int d = 0; d < rows; ++d) {
#pragma GCC unroll 8
    for (int v = 0; v < Vectors; ++v) {
      float* o = p.ot + d * kPitch + v * kLanes;
      store(o, load(o) * shrink[v]);
    }
  }
#pragma GCC unroll 8
  for (int v = 0; v < Vectors; ++v) {
    store(p.max + v * kLanes, biggest[v]);
    store(p.sum + v * kLanes, sum[v]);
  }
}

void online_softmax(Panel& p, int rows, int keys, float* scores) {
  static_assert(kTileVectors <= 4);
  switch (p.width / kLanes) {
    case 4:
      return online_softmax<4>(p, rows, keys, scores);
    case 3:
      return online_softmax<3>(p, rows, keys, scores);
    case 2:
      return online_softmax<2>(p, rows, keys, scores);
    case 1:
      return online_softmax<1>(p, rows, keys, scores);
  }
}

// Makes weights relative to 0 of scores while these are in registers, and adds to their sums.
template <Element kind>
struct Weights {
  float* sum;
  float factor;

  template <int Rows, int Vectors>
  [[gnu::always_inline]] void operator()(vfloat (&tile)[Rows][Vectors], int, int j) const {
#pragma GCC unroll 4
    for (int v = 0; v < Vectors; ++v) {
      vfloat total = load(sum + j + v * kLanes);
#pragma GCC unroll 12
      for (int r = 0; r < Rows; ++r) {
        tile[r][v] = exp2(scaled<kind>(tile[r][v], factor));
        total += tile[r][v];
      }
      store(sum + j + v * kLanes, total);
    }
  }
};

// Leaves the scores.
template <Element kind>
struct Scores {
  float factor;

  template <int Rows, int Vectors>
  [[gnu::always_inline]] void operator()(vfloat (&tile)[Rows][Vectors], int, int) const {
#pragma GCC unroll 12
    for (int r = 0; r < Rows; ++r) {
#pragma GCC unroll 4
      for (int v = 0; v < Vectors; ++v) {
        tile[r][v] = scaled<kind>(tile[r][v], factor);
      }
    }
  }
};

// Weights relative to 0 have served unless a sum is so large or so small that its terms may have
// left float32's range, or is NaN.
bool in_range(const Panel& p) {
  vfloat outside = {};
  for (int i = 0; i < p.width; i += kLanes) {
    const vfloat sum = load(p.sum + i);
    outside += ((sum >= kLow) & (sum <= kHigh)) ? vfloat{} : broadcast(1);
  }
  return sum_of_lanes(outside) == 0;
}

bool finite(const Panel& p, int D) {
  vfloat zero = {};
  for (int i = 0; i < D * p.width; i += kLanes) {
    zero += load(p.ot + i) * 0.0f;
  }
  return sum_of_lanes(zero) == 0;
}

template <class T>
void finish(const AttentionForward& f, const Group& g, const Panel& p, float* rows) {
  const int pitch = round_up(f.D);
  float* lse = f.lse + head_start(f, g);
  for (int j = 0; j < p.count; j += kLanes) {
    const int i = p.begin + j;
    const int count = smaller(kLanes, p.count - j);
    const vfloat sum = load(p.sum + j);
    const vfloat log_sum = load(p.max + j) + log2(sum);
    if (vectors_in_place<T>(g, i, count, f.D)) {
      transpose_to(p.ot, p.width, j, f.D, 1.0f / sum, row_of<float>(f.out, g, i), f.out.l);
      store(lse + g.positions[i], log_sum);
      continue;
    }
    transpose_to(p.ot, p.width, j, f.D, 1.0f / sum, rows, pitch);
    write_rows<T>(rows, pitch, f.out, g, i, count, f.D);
    for (int r = 0; r < count; ++r) {
      lse[g.positions[i + r]] = log_sum[r];
    }
  }
}

// What a task's scratch holds besides its panels.
struct Buffers {
  float* rows;    // (kWidth, pitch), pitch = D in whole vectors
  float *k, *v;   // (kKeys, D), where the arrays are not read in place
  float* scores;  // (kKeys, width)
};

Buffers carve(int D, Panel* panels, Arena& arena) {
  for (int i = 0; i < kPanels; ++i) {
    panels[i].qt = arena.take(D * kWidth);
    panels[i].ot = arena.take(D * kWidth);
    panels[i].max = arena.take(kWidth);
    panels[i].sum = arena.take(kWidth);
  }
  Buffers b;
  b.rows = arena.take(kWidth * round_up(D));
  b.k = arena.take(kKeys * D);
  b.v = arena.take(kKeys * D);
  b.scores = arena.take(kKeys * kWidth);
  return b;
}

int64_t scratch_size(int D) {
  Panel panels[kPanels];
  Arena arena{nullptr};
  carve(D, panels, arena);
  return arena.used;
}

template <class T, Element kind>
int load_panels(const AttentionForward& f, const Task& task, Panel* panels, const Buffers& b) {
  const int count = panels_of(task.end - task.begin);
  for (int i = 0; i < count; ++i) {
    const Range range = panel(task.begin, task.end, i, count);
    Panel& p = panels[i];
    p.begin = range.begin;
    p.count = range.end - range.begin;
    p.width = round_up(p.count);
    const Rows q = factors_of<kind, T>(f.q, task.group, p.begin, p.count, f.D, b.rows);
    transpose_factors<kind>(q, p.count, f.D, f.scale * kLog2E, p.width, p.qt);
    start(f, task.group, Reference::zero, p);
  }
  return count;
}

// What is read after the block of keys that ends before `next_key`.
template <class T>
Ahead<T> ahead_of(const AttentionForward& f, const Group& g, int next_key, const Task* next,
                  int calls) {
  Ahead<T> ahead(f.D);
  if (next_key < g.length) {
    ahead.add(f.v, g, next_key, smaller(next_key + kKeys, g.length));
    ahead.add(f.k, g, next_key, smaller(next_key + kKeys, g.length));
  } else if (next != nullptr) {
    ahead.add(f.v, next->group, 0, smaller(kKeys, next->group.length));
    ahead.add(f.k, next->group, 0, smaller(kKeys, next->group.length));
    ahead.add(f.q, next->group, next->begin, next->end);
  }
  ahead.spread(calls);
  return ahead;
}

// All keys of the group for the task's panels; false where Reference::zero did not serve and the
// panels are to be started again.
template <class T, Element kind, Reference reference>
bool attend(const AttentionForward& f, const Task& task, const Task* next, Panel* panels, int count,
            const Buffers& b) {
  const int D = f.D;
  const float factor = f.scale * kLog2E;
  const Group& g = task.group;
  for (int k = 0; k < g.length; k += kKeys) {
    const int keys = smaller(kKeys, g.length - k);
    const Rows key = factors_of<kind, T>(f.k, g, k, keys, D, b.k);
    const Rows value = rows_of<T>(f.v, g, k, keys, D, D, b.v);
    Ahead<T> ahead = ahead_of<T>(f, g, k + kKeys, next, count * (keys + D) / 8);
    const Start output = k == 0 && f.bias_k == nullptr ? Start::zero : Start::accumulate;
    for (int i = 0; i < count; ++i) {
      Panel& p = panels[i];
      const int w = p.width;
      const Product scores = {keys, w, elements<kind>(D), key.data, key.pitch,
                              p.qt, w, b.scores,          w,        Start::zero};
      if constexpr (reference == Reference::zero) {
        multiply<Left::straight, kind>(scores, ahead, Weights<kind>{p.sum, factor});
        if (!in_range(p)) {
          return false;
        }
      } else {
        multiply<Left::straight, kind>(scores, ahead, Scores<kind>{factor});
        online_softmax(p, output == Start::zero ? 0 : D, keys, b.scores);
      }
      multiply<Left::transposed>(
          {D, w, keys, value.data, value.pitch, b.scores, w, p.ot, w, output}, ahead);
    }
  }
  if constexpr (reference == Reference::zero) {
    for (int i = 0; i < count; ++i) {
      if (!finite(panels[i], D)) {
        return false;
      }
    }
  }
  return true;
}

template <class T, Element kind>
void forward_panels(const AttentionForward& f, const Task& task, const Task* next, float* scratch) {
  Arena arena{scratch};
  Panel panels[kPanels];
  const Buffers b = carve(f.D, panels, arena);
  const int count = load_panels<T, kind>(f, task, panels, b);
  if (!attend<T, kind, Reference::zero>(f, task, next, panels, count, b)) {
    for (int i = 0; i < count; ++i) {
      start(f, task.group, Reference::running_maximum, panels[i]);
    }
    attend<T, kind, Reference::running_maximum>(f, task, next, panels, count, b);
  }
  for (int i = 0; i < count; ++i) {
    finish<T>(f, task.group, panels[i], b.rows);
  }
}

void forward(const AttentionForward& f, const Task& task, const Task* next, float* scratch) {
  with_type(f.dtype, [&]<class T>(T) {
    if (f.bias_k == nullptr) {
      forward_panels<T, kElement<T>>(f, task, next, scratch);
    } else {  // the bias is float32, and so must be the queries that meet it
      forward_panels<T, Element::float32>(f, task, next, scratch);
    }
  });
}

}  // namespace

const AttentionForwardKernels attention_forward_kernels = {kPanels * kWidth, scratch_size, forward};

}  // namespace mlx_esm_kernels::cpu::CPU_TARGET
