#include "linear/cpu/blas.h"

#ifdef __APPLE__
#include <Accelerate/Accelerate.h>
#define MLX_ESM_KERNELS_SGEMM cblas_sgemm
#else
#include <cblas.h>
#define MLX_ESM_KERNELS_SGEMM scipy_cblas_sgemm
#endif

namespace mlx_esm_kernels::cpu {

namespace {

bool use_one_thread() {
#ifndef __APPLE__
  scipy_openblas_set_num_threads(1);
#endif
  return true;
}

}  // namespace

void sgemm(int64_t m, int64_t n, int64_t k, Operand a, Operand b, float* c, int64_t ldc,
           bool accumulate) {
  static const bool one_thread = use_one_thread();
  (void)one_thread;
  MLX_ESM_KERNELS_SGEMM(CblasRowMajor, a.transposed ? CblasTrans : CblasNoTrans,
                        b.transposed ? CblasTrans : CblasNoTrans, static_cast<int>(m),
                        static_cast<int>(n), static_cast<int>(k), 1.0f, a.data,
                        static_cast<int>(a.ld), b.data, static_cast<int>(b.ld),
                        accumulate ? 1.0f : 0.0f, c, static_cast<int>(ldc));
}

}  // namespace mlx_esm_kernels::cpu
