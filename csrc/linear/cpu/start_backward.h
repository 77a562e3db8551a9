// What backward of a linear layer begins with.
#pragma once

#include "cpu/scratch.h"
#include "linear/cpu/compute.h"

namespace mlx_esm_kernels::cpu {

// The gradient before the activation as numbers of `wanted`, float32 or the arrays' own dtype: dy
// itself where that is it, otherwise contiguous in `buffer`. The same pass makes dbias.
Matrix start_backward(const LinearBackward& a, Dtype wanted, Scratch<char>& buffer);

}  // namespace mlx_esm_kernels::cpu
