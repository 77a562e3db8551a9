#include "cpu/segments.h"

#include <numeric>
#include <unordered_map>

namespace mlx_esm_kernels::cpu {

namespace {

// Numbers the ids of one row 0, 1, ... by first appearance, padding -1; returns how many there are.
int number_segments(const int64_t* ids, int length, std::vector<int32_t>& number) {
  std::unordered_map<int64_t, int32_t> seen;
  int64_t previous = 0;
  int32_t current = -1;
  for (int l = 0; l < length; ++l) {
    if (ids[l] != previous) {
      previous = ids[l];
      const auto fresh = static_cast<int32_t>(seen.size());
      current = previous == 0 ? -1 : seen.try_emplace(previous, fresh).first->second;
    }
    number[l] = current;
  }
  return static_cast<int>(seen.size());
}

}  // namespace

Segments group_by_segment(const int64_t* ids, int batch, int length) {
  Segments out;
  out.order.resize(static_cast<size_t>(batch) * length);
  out.occupied.assign(batch, length);
  std::vector<int32_t> number(length);
  for (int b = 0; b < batch; ++b) {
    const int64_t row = static_cast<int64_t>(b) * length;
    if (ids == nullptr) {
      std::iota(out.order.begin() + row, out.order.begin() + row + length, 0);
      if (length > 0) {
        out.segments.push_back({b, length, row});
      }
      continue;
    }
    const int count = number_segments(ids + row, length, number);
    std::vector<int32_t> lengths(count + 1, 0);
    for (int l = 0; l < length; ++l) {
      ++lengths[number[l] < 0 ? count : number[l]];
    }
    std::vector<int64_t> cursor(count + 1, row);
    for (int s = 0; s < count; ++s) {
      out.segments.push_back({b, lengths[s], cursor[s]});
      cursor[s + 1] = cursor[s] + lengths[s];
    }
    out.occupied[b] = length - lengths[count];
    for (int l = 0; l < length; ++l) {
      out.order[cursor[number[l] < 0 ? count : number[l]]++] = l;
    }
  }
  return out;
}

}  // namespace mlx_esm_kernels::cpu
