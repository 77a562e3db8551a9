#include "masked_attention/masked_attention_compute.h"

#include <algorithm>
#include <new>
#include <thread>
#include <vector>

#include "cpu/segments.h"
#include "cpu/threads.h"
#include "masked_attention/masked_attention_kernels.h"

namespace mlx_esm_kernels::cpu {

namespace {

const AttentionForwardKernels& forward_kernels() {
  return MLX_ESM_KERNELS_IN_USE(attention_forward_kernels);
}

const AttentionBackwardKernels& backward_kernels() {
  return MLX_ESM_KERNELS_IN_USE(attention_backward_kernels);
}

// One call of a kernel: rows [begin, end) of a segment and head.
struct Task {
  Group group;
  int begin, end;
  int64_t turns;  // backward: where this segment and head's turns start
};

// Longest segments first, so that no thread is left alone with a long one; the order of equal
// ones, and so of the tasks within a head, is kept.
std::vector<Segment> by_length(std::vector<Segment> segments) {
  std::stable_sort(segments.begin(), segments.end(),
                   [](const Segment& a, const Segment& b) { return a.length > b.length; });
  return segments;
}

std::vector<Task> cut(const AttentionInputs& in, const Segments& grouped, int step, int panel) {
  std::vector<Task> tasks;
  int64_t turns = 0;
  for (const Segment& s : by_length(grouped.segments)) {
    for (int h = 0; h < in.H; ++h) {
      const Group group{s.batch, h, grouped.order.data() + s.begin, s.length};
      for (int begin = 0; begin < s.length; begin += step) {
        tasks.push_back({group, begin, std::min(begin + step, s.length), turns});
      }
      turns += pieces(s.length, panel);
    }
  }
  return tasks;
}

// Calls body(group, occupied) for every head; the group holds all rows, padding last.
template <class Body>
void for_each_head(const AttentionInputs& in, const Segments& grouped, const Body& body) {
  parallel_for(static_cast<int64_t>(in.B) * in.H, [&](int64_t i) {
    const int b = static_cast<int>(i / in.H);
    const int h = static_cast<int>(i % in.H);
    const int32_t* positions = grouped.order.data() + static_cast<int64_t>(b) * in.L;
    body(Group{b, h, positions, in.L}, grouped.occupied[b]);
  });
}

size_t dtype_size(Dtype dtype) {
  return dtype == Dtype::float32 ? 4 : 2;
}

void zero_padding(const AttentionForward& f, const Segments& grouped) {
  for_each_head(f, grouped, [&](const Group& g, int occupied) {
    const size_t size = dtype_size(f.dtype);
    float* lse = f.lse + (static_cast<int64_t>(g.b) * f.H + g.h) * f.L;
    for (int i = occupied; i < f.L; ++i) {
      const int64_t at = g.b * f.out.b + g.h * f.out.h + g.positions[i] * f.out.l;
      std::fill_n(static_cast<char*>(f.out.data) + at * size, f.D * size, 0);
      lse[g.positions[i]] = 0;
    }
  });
}

// A task that failed lets those that wait for its turns go on.
void pass_turns(int32_t* turns, int64_t panels, int chunk) {
  for (int64_t p = 0; p < panels; ++p) {
    while (__atomic_load_n(turns + p, __ATOMIC_ACQUIRE) != chunk) {
      std::this_thread::yield();
    }
    __atomic_store_n(turns + p, chunk + 1, __ATOMIC_RELEASE);
  }
}

// Partial sums per batch row are added in the order of the rows.
void sum_over_batch(const std::vector<float>& partial, int batch, int64_t size, float* out) {
  std::fill_n(out, size, 0.0f);
  for (int b = 0; b < batch; ++b) {
    for (int64_t i = 0; i < size; ++i) {
      out[i] += partial[b * size + i];
    }
  }
}

}  // namespace

void attention_forward(const AttentionForward& f) {
  const AttentionForwardKernels& kernel = forward_kernels();
  const Segments grouped = group_by_segment(f.segment_ids, f.B, f.L);
  zero_padding(f, grouped);
  const std::vector<Task> tasks = cut(f, grouped, kernel.queries, kernel.queries);
  parallel_for(static_cast<int64_t>(tasks.size()), [&](int64_t i) {
    float* scratch = thread_scratch(kernel.scratch_size(f.D));
    kernel.forward(f, tasks[i].group, tasks[i].begin, tasks[i].end, scratch);
  });
}

void attention_backward(const AttentionBackward& a) {
  const AttentionBackwardKernels& kernel = backward_kernels();
  const Segments grouped = group_by_segment(a.segment_ids, a.B, a.L);
  const int64_t rows = static_cast<int64_t>(a.B) * a.H * a.L;
  const int64_t bias = a.bias_k == nullptr ? 0 : static_cast<int64_t>(a.H) * a.D;
  std::vector<float> delta(rows);
  std::vector<float> dq(a.dtype == Dtype::float32 ? 0 : rows * a.D);
  std::vector<float> partial_bias_k(bias * a.B);
  std::vector<float> partial_bias_v(bias * a.B);
  AttentionWorkspace ws{delta.data(), a.dq, partial_bias_k.data(), partial_bias_v.data()};
  if (a.dtype != Dtype::float32) {
    const int64_t head = static_cast<int64_t>(a.L) * a.D;
    ws.dq = {dq.data(), a.H * head, head, a.D, 1};
  }
  for_each_head(a, grouped, [&](const Group& g, int occupied) {
    kernel.prepare(a, ws, g, occupied, thread_scratch(3 * (a.D + 16)));
  });

  const std::vector<Task> tasks = cut(a, grouped, kernel.key_chunk(a.D), kernel.panel);
  std::vector<int32_t> turns(rows, 0);
  parallel_for(static_cast<int64_t>(tasks.size()), [&](int64_t i) {
    const Task& t = tasks[i];
    int32_t* own_turns = turns.data() + t.turns;
    float* scratch = nullptr;
    try {
      scratch = thread_scratch(kernel.scratch_size(a.D));
    } catch (const std::bad_alloc&) {
      pass_turns(own_turns, pieces(t.group.length, kernel.panel), t.begin / kernel.key_chunk(a.D));
      throw;
    }
    kernel.backward(a, ws, t.group, t.begin, t.end, own_turns, scratch);
  });

  if (a.dtype != Dtype::float32) {
    for_each_head(a, grouped, [&](const Group& g, int) { kernel.finish(a, ws, g.b, g.h); });
  }
  if (a.bias_k != nullptr) {
    sum_over_batch(partial_bias_k, a.B, bias, a.dbias_k);
    sum_over_batch(partial_bias_v, a.B, bias, a.dbias_v);
  }
}

}  // namespace mlx_esm_kernels::cpu
