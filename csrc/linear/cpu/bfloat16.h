// linear of bfloat16 arrays where the processor multiplies bfloat16.
#pragma once

#include "linear/cpu/compute.h"

namespace mlx_esm_kernels::cpu {

// Whether it does, and for arrays of this dtype.
bool multiplies(Dtype dtype);

// As linear_forward and linear_backward.
void bfloat16_forward(const LinearForward* layers, int count);
void bfloat16_backward(const LinearBackward* layers, int count);

}  // namespace mlx_esm_kernels::cpu
