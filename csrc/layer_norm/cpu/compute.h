// Layer normalisation on plain memory: what eval_cpu calls. Free of MLX and of C++ library headers
// (see cpu/vector.h).
#pragma once

#include <stdint.h>

#include "cpu/target.h"

namespace mlx_esm_kernels::cpu {

// (M, C) with strides in elements; absent where data is nullptr.
struct LayerNormRows {
  const void* data;
  int64_t row_stride, column_stride;
};

// x is what is normalised, in forward before delta is added. weight is (C). Outputs are contiguous.
struct LayerNormInputs {
  Dtype dtype;
  int64_t M, C;
  float eps;
  LayerNormRows x;
  const float* weight;
};

struct LayerNormForward : LayerNormInputs {
  LayerNormRows delta;
  const float* bias;  // (C)
  void* sum;          // (M, C): x + delta; nullptr without delta
  void* y;            // (M, C)
};

struct LayerNormBackward : LayerNormInputs {
  LayerNormRows dy, ds;
  void* dx;        // (M, C)
  float* dweight;  // (C)
  float* dbias;    // (C)
};

void layer_norm_forward(const LayerNormForward& args);

// Deterministic: the order of every sum depends on the shapes alone.
void layer_norm_backward(const LayerNormBackward& args);

}  // namespace mlx_esm_kernels::cpu
