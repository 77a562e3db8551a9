#include "masked_attention/cpu/segments.h"

#include <numeric>

#include "cpu/runs.h"

namespace mlx_esm_kernels::cpu {

Segments group_by_segment(const int64_t* ids, int batch, int length) {
  Segments out;
  out.order.resize(static_cast<size_t>(batch) * length);
  out.occupied.assign(batch, 0);
  for (int b = 0; b < batch; ++b) {
    const int64_t row = static_cast<int64_t>(b) * length;
    const std::vector<Run> runs = find_runs(ids == nullptr ? nullptr : ids + row, length);
    const size_t first = out.segments.size();
    for (const Run& run : runs) {
      if (run.segment < 0) {
        continue;
      }
      if (first + run.segment == out.segments.size()) {
        out.segments.push_back({b, 0, 0});
      }
      out.segments[first + run.segment].length += run.end - run.begin;
      out.occupied[b] += run.end - run.begin;
    }
    std::vector<int64_t> next = {row};  // where the next position of each segment goes, and padding
    for (size_t s = first; s < out.segments.size(); ++s) {
      out.segments[s].begin = next.back();
      next.push_back(next.back() + out.segments[s].length);
    }
    for (const Run& run : runs) {
      int64_t& at = run.segment < 0 ? next.back() : next[run.segment];
      const int64_t end = at + run.end - run.begin;
      std::iota(out.order.begin() + at, out.order.begin() + end, run.begin);
      at = end;
    }
  }
  return out;
}

}  // namespace mlx_esm_kernels::cpu
