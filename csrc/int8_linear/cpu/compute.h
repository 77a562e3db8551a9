// y = activation(x W^T + b) + residual with W in int8, on plain memory: what eval_cpu calls. Free
// of MLX and of C++ library headers (see cpu/vector.h).
#pragma once

#include "linear/cpu/compute.h"

namespace mlx_esm_kernels::cpu {

// The longest row whose sum of products of bytes is certain to fit 32 bits: 255 * 128 each.
constexpr int64_t kInt8MaxDepth = 65536;

// `layer` as for linear_forward, but that its weight is int8, contiguous; pre is nullptr.
struct Int8LinearForward {
  LinearForward layer;
  const float* scales;  // (N): a weight is its byte times that of its row
};

// Layers of one x, which is quantised once for all of them.
void int8_linear_forward(const Int8LinearForward* layers, int count);

}  // namespace mlx_esm_kernels::cpu
