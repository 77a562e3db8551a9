// Rows of an array where they lie. Free of MLX and of C++ library headers (see cpu/vector.h).
#pragma once

#include <stdint.h>

namespace mlx_esm_kernels::cpu {

// A two-dimensional array with strides in elements; absent where data is nullptr.
struct StridedRows {
  const void* data;
  int64_t row_stride, column_stride;
};

}  // namespace mlx_esm_kernels::cpu
