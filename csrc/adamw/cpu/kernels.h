// The parts of adamw that are compiled once per instruction set. Free of MLX and of C++ library
// headers (see cpu/vector.h).
#pragma once

#include <stdint.h>

#include "cpu/target.h"

namespace mlx_esm_kernels::cpu {

struct AdamWParameter {
  int64_t size;
  bool decays;
  const float *w, *g, *m, *v;
  float *next_w, *next_m, *next_v;
};

// m' = beta_1 m + share_1 g; v' = beta_2 v + share_2 g^2; w' = kept w - rate m' / (sqrt v' + eps)
struct AdamWFactors {
  float beta_1, share_1, beta_2, share_2, kept, rate, epsilon;
};

struct AdamWKernels {
  // The sum of the squares of n numbers.
  float (*sum_of_squares)(const float* x, int64_t n);

  // Numbers [begin, end) of a parameter.
  void (*update)(const AdamWParameter&, const AdamWFactors&, int64_t begin, int64_t end);
};

MLX_ESM_KERNELS_DECLARE(AdamWKernels, adamw_kernels)

}  // namespace mlx_esm_kernels::cpu
