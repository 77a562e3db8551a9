// Positions of a batch, grouped by segment id. Free of MLX.
#pragma once

#include <cstddef>
#include <cstdint>
#include <unordered_map>
#include <vector>

namespace mlx_esm_kernels::cpu {

// Numbers the segments of one row 0, 1, ... by first appearance; padding is -1. The ids of the row
// are given one after the other.
class SegmentNumbers {
 public:
  int32_t of(int64_t id) {
    if (id != previous_) {
      previous_ = id;
      const auto fresh = static_cast<int32_t>(seen_.size());
      current_ = id == 0 ? -1 : seen_.try_emplace(id, fresh).first->second;
    }
    return current_;
  }

 private:
  std::unordered_map<int64_t, int32_t> seen_;
  int64_t previous_ = 0;
  int32_t current_ = -1;
};

// One segment of one batch row: its positions are order[begin] ... order[begin + length - 1].
struct Segment {
  int32_t batch;
  int32_t length;
  int64_t begin;
};

// A stable grouping: within a segment, positions ascend. Memory is O(B L).
struct Segments {
  std::vector<int32_t> order;     // (B, L): per row the positions segment by segment, padding last
  std::vector<Segment> segments;  // without padding
  std::vector<int32_t> occupied;  // (B): how many positions of a row are not padding
};

// ids is (B, L), contiguous; 0 is padding; nullptr makes each row one segment.
Segments group_by_segment(const int64_t* ids, int batch, int length);

}  // namespace mlx_esm_kernels::cpu
