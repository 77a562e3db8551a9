#include "positional_embedding/cpu/compute.h"

#include <algorithm>
#include <memory>
#include <numeric>
#include <vector>

#include "ceil_div.h"
#include "cpu/threads.h"
#include "positional_embedding/cpu/kernels.h"
#include "positional_embedding/cpu/lookups.h"

namespace mlx_esm_kernels::cpu {

namespace {

constexpr int64_t kForwardRows = 64;    // of the output, to a task
constexpr int64_t kBackwardRows = 512;  // of dout and of dposition_table, to a task

const EmbeddingKernels& kernels() {
  return MLX_ESM_KERNELS_IN_USE(embedding_kernels);
}

// The rows of the batch in order of their positions.
struct Positions {
  std::vector<int64_t> starts, rows;
};

Positions group_by_position(const std::vector<EmbeddingLookup>& lookups, int64_t positions) {
  std::vector<int64_t> starts(positions + 1, 0);
  for (const EmbeddingLookup& lookup : lookups) {
    if (lookup.position >= 0) {
      ++starts[lookup.position + 1];
    }
  }
  std::partial_sum(starts.begin(), starts.end(), starts.begin());
  std::vector<int64_t> rows(starts.back()), next(starts);
  for (size_t i = 0; i < lookups.size(); ++i) {
    if (lookups[i].position >= 0) {
      rows[next[lookups[i].position]++] = static_cast<int64_t>(i);
    }
  }
  return {std::move(starts), std::move(rows)};
}

// Where the tasks of backward begin, and the end: about as much work for each. A task has a table
// of tokens of its own, so it is no smaller than that table.
std::vector<int64_t> cut(const Positions& by, int64_t vocab) {
  const int64_t positions = static_cast<int64_t>(by.starts.size()) - 1;
  const int64_t weight = positions + by.starts[positions];
  const int64_t tasks = std::max<int64_t>(1, weight / std::max(kBackwardRows, vocab));
  std::vector<int64_t> cuts = {0};
  for (int64_t p = 1; p < positions; ++p) {
    if ((p + by.starts[p]) * tasks >= weight * static_cast<int64_t>(cuts.size())) {
      cuts.push_back(p);
    }
  }
  cuts.push_back(positions);
  return cuts;
}

}  // namespace

void check_embedding(const EmbeddingInputs& in) {
  find_lookups(in);
}

void embedding_forward(const EmbeddingForward& f) {
  const std::vector<EmbeddingLookup> lookups = find_lookups(f);
  const auto rows = static_cast<int64_t>(lookups.size());
  parallel_for(ceil_div(rows, kForwardRows), [&](int64_t i) {
    const int64_t end = std::min(rows, (i + 1) * kForwardRows);
    kernels().forward(f, lookups.data(), i * kForwardRows, end, thread_scratch(2 * f.C));
  });
}

void embedding_backward(const EmbeddingBackward& a) {
  const std::vector<EmbeddingLookup> lookups = find_lookups(a);
  const Positions by = group_by_position(lookups, a.positions);
  const std::vector<int64_t> cuts = cut(by, a.vocab);
  const int64_t tasks = static_cast<int64_t>(cuts.size()) - 1, size = a.vocab * a.C;
  const std::unique_ptr<float[]> tables(new float[tasks * size]);
  parallel_for(tasks, [&](int64_t i) {
    kernels().backward(a, lookups.data(), {by.starts.data(), by.rows.data()}, cuts[i], cuts[i + 1],
                       tables.get() + i * size, thread_scratch(2 * a.C));
  });
  parallel_for(a.vocab, [&](int64_t token) {
    kernels().sum_tokens(a, tables.get(), tasks, token, thread_scratch(a.C));
  });
}

}  // namespace mlx_esm_kernels::cpu
