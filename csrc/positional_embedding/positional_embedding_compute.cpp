#include "positional_embedding/positional_embedding_compute.h"

#include <algorithm>
#include <stdexcept>
#include <string>
#include <vector>

#include "cpu/segments.h"
#include "cpu/threads.h"
#include "positional_embedding/positional_embedding_kernels.h"

namespace mlx_esm_kernels::cpu {

namespace {

constexpr int64_t kRows = 64;  // output rows of a task of forward
constexpr int kColumns = 16;   // columns that a task of backward owns: a cache line of float32

const EmbeddingKernels& kernels() {
  return MLX_ESM_KERNELS_IN_USE(embedding_kernels);
}

[[noreturn]] void fail(const std::string& sentence) {
  throw std::invalid_argument("[positional_embedding] " + sentence);
}

std::string place(int64_t at, int length) {
  return "[" + std::to_string(at / length) + ", " + std::to_string(at % length) + "]";
}

// The segment of every token that is not padding, 0 for the others.
std::vector<int64_t> segments_without_padding(const EmbeddingInputs& in) {
  const int64_t size = static_cast<int64_t>(in.B) * in.L;
  std::vector<int64_t> ids(size);
  for (int64_t i = 0; i < size; ++i) {
    const int64_t token = in.tokens[i];
    const int64_t segment = in.segment_ids == nullptr ? 1 : in.segment_ids[i];
    ids[i] = token == in.padding_idx ? 0 : segment;
    if (ids[i] != 0 && (token < 0 || token >= in.vocab)) {
      fail("tokens must be in [0, " + std::to_string(in.vocab) +
           "), the rows of token_table; got " + std::to_string(token) + " at " + place(i, in.L) +
           ".");
    }
  }
  return ids;
}

float token_scale(const EmbeddingInputs& in, const int64_t* tokens, const int32_t* order, int n) {
  if (!in.token_dropout) {
    return 1.0f;
  }
  const auto masked =
      std::count_if(order, order + n, [&](int32_t l) { return tokens[l] == in.mask_idx; });
  const float kept = 1.0f - static_cast<float>(masked) / static_cast<float>(n);
  return masked == n ? 0.0f : kKeptInTraining / kept;
}

std::vector<Source> find_sources(const EmbeddingInputs& in) {
  const std::vector<int64_t> ids = segments_without_padding(in);
  const Segments grouped = group_by_segment(ids.data(), in.B, in.L);
  std::vector<Source> sources(ids.size(), Source{0, -1, 0.0f});
  for (const Segment& s : grouped.segments) {
    const int64_t last = in.padding_idx + s.length;
    if (last >= in.positions) {
      fail("position_table must have more than padding_idx + length = " +
           std::to_string(in.padding_idx) + " + " + std::to_string(s.length) +
           " rows for the longest sequence (batch row " + std::to_string(s.batch) + "); got " +
           std::to_string(in.positions) + " rows. Crop the sequence or use a longer table.");
    }
    const int64_t row = static_cast<int64_t>(s.batch) * in.L;
    const int32_t* order = grouped.order.data() + s.begin;
    const float scale = token_scale(in, in.tokens + row, order, s.length);
    for (int i = 0; i < s.length; ++i) {
      const int64_t token = in.tokens[row + order[i]];
      const bool dropped = in.token_dropout && token == in.mask_idx;
      sources[row + order[i]] = {static_cast<int32_t>(token),
                                 static_cast<int32_t>(in.padding_idx + 1 + i),
                                 dropped ? 0.0f : scale};
    }
  }
  return sources;
}

}  // namespace

void check_embedding(const EmbeddingInputs& in) {
  find_sources(in);
}

void embedding_forward(const EmbeddingForward& f) {
  const std::vector<Source> sources = find_sources(f);
  const auto rows = static_cast<int64_t>(sources.size());
  parallel_for(pieces(rows, kRows), [&](int64_t i) {
    const int64_t end = std::min(rows, (i + 1) * kRows);
    kernels().forward(f, sources.data(), i * kRows, end, thread_scratch(2 * f.C));
  });
}

void embedding_backward(const EmbeddingBackward& a) {
  const std::vector<Source> sources = find_sources(a);
  parallel_for(pieces(a.C, kColumns), [&](int64_t i) {
    const int begin = static_cast<int>(i) * kColumns;
    const int end = std::min(a.C, begin + kColumns);
    float* scratch = thread_scratch((a.vocab + a.positions + 1) * (end - begin));
    kernels().backward(a, sources.data(), begin, end, scratch);
  });
}

}  // namespace mlx_esm_kernels::cpu
