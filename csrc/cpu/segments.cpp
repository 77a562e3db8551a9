#include "cpu/segments.h"

#include <algorithm>
#include <numeric>

namespace mlx_esm_kernels::cpu {

namespace {

// Numbers the positions of one row by their segments; returns how many segments there are.
int number_segments(const int64_t* ids, int length, std::vector<int32_t>& number) {
  SegmentNumbers numbers;
  int count = 0;
  for (int l = 0; l < length; ++l) {
    number[l] = numbers.of(ids[l]);
    count = std::max(count, number[l] + 1);
  }
  return count;
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
