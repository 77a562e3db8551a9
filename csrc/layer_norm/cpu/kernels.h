// The parts of layer_norm that are compiled once per instruction set.
#pragma once

#include "layer_norm/cpu/compute.h"

namespace mlx_esm_kernels::cpu {

struct LayerNormKernels {
  // Rows [begin, end); row holds C floats.
  void (*forward)(const LayerNormForward&, int64_t begin, int64_t end, float* row);

  // Rows [begin, end), whose parts of dweight and dbias are added to these; rows holds 2 C floats.
  void (*backward)(const LayerNormBackward&, int64_t begin, int64_t end, float* dweight,
                   float* dbias, float* rows);
};

MLX_ESM_KERNELS_DECLARE(LayerNormKernels, layer_norm_kernels)

}  // namespace mlx_esm_kernels::cpu
