// The one matrix product that comes from the system's BLAS. Free of MLX.
#pragma once

#include <cstdint>

namespace mlx_esm_kernels::cpu {

// A row-major float32 matrix whose rows are `ld` apart, or its transpose.
struct Operand {
  const float* data;
  int64_t ld;
  bool transposed;
};

// C = A B + (accumulate ? C : 0) with C m x n, on the calling thread alone (on Linux: there the
// pool of cpu/threads.h makes the calls, and a second pool would fight it for the cores).
void sgemm(int64_t m, int64_t n, int64_t k, Operand a, Operand b, float* c, int64_t ldc,
           bool accumulate);

}  // namespace mlx_esm_kernels::cpu
