// Positions of a batch, grouped by segment id. Free of MLX.
#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

namespace mlx_esm_kernels::cpu {

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
