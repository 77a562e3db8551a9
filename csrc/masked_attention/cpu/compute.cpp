#include "masked_attention/cpu/compute.h"

#include <algorithm>
#include <new>
#include <thread>
#include <vector>

#include "ceil_div.h"
#include "cpu/threads.h"
#include "masked_attention/cpu/kernels.h"
#include "masked_attention/cpu/segments.h"

namespace mlx_esm_kernels::cpu {

namespace {

constexpr int kUnit = 16;  // rows: whole vectors on every instruction set

const AttentionForwardKernels& forward_kernels() {
  return MLX_ESM_KERNELS_IN_USE(attention_forward_kernels);
}

const AttentionBackwardKernels& backward_kernels() {
  return MLX_ESM_KERNELS_IN_USE(attention_backward_kernels);
}

// Longest segments first, so that no thread is left alone with a long one; the order of equal
// ones, and so of the tasks within a head, is kept.
std::vector<Segment> by_length(std::vector<Segment> segments) {
  std::stable_sort(segments.begin(), segments.end(),
                   [](const Segment& a, const Segment& b) { return a.length > b.length; });
  return segments;
}

// Calls body(group, begin, end, piece, pieces) for every head of every segment: its rows in as few
// nearly equal pieces as `most` rows allow, each a multiple of `unit` but for the last.
template <class Body>
void for_each_piece(const AttentionInputs& in, const Segments& grouped, int most, int unit,
                    const Body& body) {
  for (const Segment& s : by_length(grouped.segments)) {
    const auto needed = static_cast<int>(ceil_div(s.length, most));
    const auto step = static_cast<int>(ceil_div(ceil_div(s.length, needed), unit) * unit);
    const auto count = static_cast<int>(ceil_div(s.length, step));
    for (int h = 0; h < in.H; ++h) {
      const Group group{s.batch, h, grouped.order.data() + s.begin, s.length};
      for (int i = 0; i < count; ++i) {
        body(group, i * step, std::min((i + 1) * step, s.length), i, count);
      }
    }
  }
}

// What the thread that takes task i is likely to take afterwards.
template <class T>
const T* after(const std::vector<T>& tasks, int64_t i) {
  const int64_t next = i + num_threads();
  return next < static_cast<int64_t>(tasks.size()) ? &tasks[next] : nullptr;
}

bool has_padding(const AttentionInputs& in, const Segments& grouped) {
  return std::any_of(grouped.occupied.begin(), grouped.occupied.end(),
                     [&](int32_t occupied) { return occupied < in.L; });
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
void pass_turns(const ChunkTask& task, int64_t panels) {
  for (int64_t p = 0; p < panels; ++p) {
    while (__atomic_load_n(task.turns + p, __ATOMIC_ACQUIRE) != task.chunk) {
      std::this_thread::yield();
    }
    __atomic_store_n(task.turns + p, task.chunk + 1, __ATOMIC_RELEASE);
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
  if (has_padding(f, grouped)) {
    zero_padding(f, grouped);
  }
  std::vector<Task> tasks;
  for_each_piece(
      f, grouped, kernel.queries, kUnit,
      [&](const Group& g, int begin, int end, int, int) { tasks.push_back({g, begin, end}); });
  parallel_for(static_cast<int64_t>(tasks.size()), [&](int64_t i) {
    float* scratch = thread_scratch(kernel.scratch_size(f.D));
    kernel.forward(f, tasks[i], after(tasks, i), scratch);
  });
}

void attention_backward(const AttentionBackward& a) {
  const AttentionBackwardKernels& kernel = backward_kernels();
  const Segments grouped = group_by_segment(a.segment_ids, a.B, a.L);
  const int64_t rows = static_cast<int64_t>(a.B) * a.H * a.L;
  const int64_t bias = a.bias_k == nullptr ? 0 : static_cast<int64_t>(a.H) * a.D;
  std::vector<ChunkTask> tasks;
  std::vector<int32_t> turns(rows, 0);
  int32_t* unused_turns = turns.data();
  bool summed = bias > 0;  // whether dq has more than one contribution
  for_each_piece(a, grouped, kernel.key_chunk(a.D), kUnit,
                 [&](const Group& g, int begin, int end, int chunk, int chunks) {
                   tasks.push_back({{g, begin, end}, chunk, chunks, unused_turns});
                   unused_turns += chunk == chunks - 1 ? ceil_div(g.length, kernel.panel) : 0;
                   summed = summed || chunks > 1;
                 });
  std::vector<float> partial_bias_k(bias * a.B);
  std::vector<float> partial_bias_v(bias * a.B);
  std::vector<float> dq(a.dtype != Dtype::float32 && summed ? rows * a.D : 0);
  AttentionWorkspace ws{a.dq, partial_bias_k.data(), partial_bias_v.data()};
  if (a.dtype != Dtype::float32) {
    const int64_t head = static_cast<int64_t>(a.L) * a.D;
    ws.dq = {dq.data(), a.H * head, head, a.D, 1};
  }
  if (bias > 0 || has_padding(a, grouped)) {
    for_each_head(a, grouped, [&](const Group& g, int occupied) {
      kernel.prepare(a, ws, g, occupied, thread_scratch(kernel.scratch_size(a.D)));
    });
  }
  parallel_for(static_cast<int64_t>(tasks.size()), [&](int64_t i) {
    float* scratch = nullptr;
    try {
      scratch = thread_scratch(kernel.scratch_size(a.D));
    } catch (const std::bad_alloc&) {
      pass_turns(tasks[i], ceil_div(tasks[i].group.length, kernel.panel));
      throw;
    }
    kernel.backward(a, ws, tasks[i], after(tasks, i), scratch);
  });
  if (bias > 0) {
    sum_over_batch(partial_bias_k, a.B, bias, a.dbias_k);
    sum_over_batch(partial_bias_v, a.B, bias, a.dbias_v);
  }
}

}  // namespace mlx_esm_kernels::cpu
