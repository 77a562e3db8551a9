// Plain loops in the place of BLAS, for a processor for which the tests have none.
#include "linear/cpu/blas.h"

namespace mlx_esm_kernels::cpu {

namespace {

float at(const Operand& a, int64_t row, int64_t column) {
  return a.transposed ? a.data[column * a.ld + row] : a.data[row * a.ld + column];
}

}  // namespace

void sgemm(int64_t m, int64_t n, int64_t k, Operand a, Operand b, float* c, int64_t ldc,
           bool accumulate) {
  for (int64_t i = 0; i < m; ++i) {
    for (int64_t j = 0; j < n; ++j) {
      float sum = 0;
      for (int64_t l = 0; l < k; ++l) {
        sum += at(a, i, l) * at(b, l, j);
      }
      c[i * ldc + j] = sum + (accumulate ? c[i * ldc + j] : 0);
    }
  }
}

}  // namespace mlx_esm_kernels::cpu
