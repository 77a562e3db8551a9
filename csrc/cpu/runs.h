// Runs of equal segment ids in a row. Free of MLX.
#pragma once

#include <cstdint>
#include <vector>

namespace mlx_esm_kernels::cpu {

// Positions [begin, end) of one row, all of one segment. Segments are numbered 0, 1, ... by first
// appearance in the row; padding is -1.
struct Run {
  int32_t begin, end, segment;
};

// The runs of a row of `length` ids, in order. 0 is padding; nullptr makes the row one segment.
std::vector<Run> find_runs(const int64_t* ids, int length);

}  // namespace mlx_esm_kernels::cpu
