#include "adamw/cpu/compute.h"

#include <algorithm>
#include <cmath>

#include "cpu/threads.h"

namespace mlx_esm_kernels::cpu {

namespace {

// Numbers whose squares are summed at once, and as many as are worth a task.
constexpr int64_t kChunk = 1 << 13;

const AdamWKernels& kernels() {
  return MLX_ESM_KERNELS_IN_USE(adamw_kernels);
}

// Numbers [begin, end) of item number `item`.
struct Chunk {
  size_t item;
  int64_t begin, end;
};

// Cuts items, of which each has a size, into chunks.
template <class Item>
std::vector<Chunk> cut(const std::vector<Item>& items) {
  std::vector<Chunk> chunks;
  for (size_t i = 0; i < items.size(); ++i) {
    for (int64_t begin = 0; begin < items[i].size; begin += kChunk) {
      chunks.push_back({i, begin, std::min(begin + kChunk, items[i].size)});
    }
  }
  return chunks;
}

// Chunks [ends[i], ends[i + 1]) make one task.
std::vector<size_t> tasks_of(const std::vector<Chunk>& chunks) {
  std::vector<size_t> ends = {0};
  int64_t numbers = 0;
  for (size_t i = 0; i < chunks.size(); ++i) {
    numbers += chunks[i].end - chunks[i].begin;
    if (numbers >= kChunk || i + 1 == chunks.size()) {
      ends.push_back(i + 1);
      numbers = 0;
    }
  }
  return ends;
}

// Calls body(number, chunk) for every chunk, on all threads.
template <class Body>
void for_each(const std::vector<Chunk>& chunks, const Body& body) {
  const std::vector<size_t> ends = tasks_of(chunks);
  parallel_for(static_cast<int64_t>(ends.size()) - 1, [&](int64_t task) {
    for (size_t i = ends[task]; i < ends[task + 1]; ++i) {
      body(i, chunks[i]);
    }
  });
}

}  // namespace

float gradient_norm(const std::vector<Numbers>& gradients) {
  const std::vector<Chunk> chunks = cut(gradients);
  std::vector<float> sums(chunks.size());
  for_each(chunks, [&](size_t i, const Chunk& c) {
    sums[i] = kernels().sum_of_squares(gradients[c.item].data + c.begin, c.end - c.begin);
  });
  double total = 0;
  for (const float sum : sums) {
    total += sum;
  }
  return static_cast<float>(std::sqrt(total));
}

void adamw_step(const AdamWStep& step) {
  const float norm = *step.norm;
  // A norm that is NaN must spoil the step, for the caller to see: no comparison with it holds.
  const float clip = norm <= step.clip_norm ? 1.0f : step.clip_norm / norm;
  const AdamWFactors factors{step.beta_1,
                             (1 - step.beta_1) * clip,
                             step.beta_2,
                             (1 - step.beta_2) * clip * clip,
                             1 - step.rates[0] * step.weight_decay,
                             step.rates[1],
                             step.rates[2]};
  for_each(cut(step.parameters), [&](size_t, const Chunk& c) {
    kernels().update(step.parameters[c.item], factors, c.begin, c.end);
  });
}

}  // namespace mlx_esm_kernels::cpu
