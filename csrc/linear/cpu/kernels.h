// The parts of linear that are compiled once per instruction set.
#pragma once

#include "linear/cpu/compute.h"

namespace mlx_esm_kernels::cpu {

struct LinearKernels {
  // Rows [begin, end) of a matrix as contiguous float32.
  void (*read)(const Matrix&, Dtype, int64_t begin, int64_t end, float* to);

  // n float32 values rounded to the dtype.
  void (*write)(const float* from, Dtype, int64_t n, void* to, int64_t at);

  // Adds the bias to a tile of the product (rows x columns at pitch ld), and the residual after the
  // activation, and writes y, and pre where that is wanted, at [row, column] of their (M, N). The
  // tile may be the very memory of its target.
  struct Tile {
    float* data;
    int64_t ld, row, column, rows, columns;
  };
  void (*finish)(const LinearForward&, const Tile&);

  // Rows [begin, end): dh = dy * gelu'(pre), or dy itself, as float32 or as what dy is at its place
  // in (M, N); dh may be nullptr. Adds the rows to dbias where that is wanted. `row` holds N
  // floats.
  void (*start_backward)(const LinearBackward&, int64_t begin, int64_t end, Dtype, void* dh,
                         float* dbias, float* row);
};

MLX_ESM_KERNELS_DECLARE(LinearKernels, linear_kernels)

}  // namespace mlx_esm_kernels::cpu
