// Layer normalisation on plain memory: what eval_cpu calls. Free of MLX and of C++ library headers
// (see cpu/vector.h).
#pragma once

#include <stdint.h>

#include "cpu/strided_rows.h"
#include "cpu/target.h"

namespace mlx_esm_kernels::cpu {

// Rows are (M, C). x is what is normalised, in forward before delta is added. weight is (C).
// Outputs are contiguous.
struct LayerNormInputs {
  Dtype dtype;
  int64_t M, C;
  float eps;
  StridedRows x;
  const float* weight;
};

struct LayerNormForward : LayerNormInputs {
  StridedRows delta;
  const float* bias;  // (C)
  void* sum;          // (M, C): x + delta; nullptr without delta
  void* y;            // (M, C)
};

struct LayerNormBackward : LayerNormInputs {
  StridedRows dy, ds;
  void* dx;        // (M, C)
  float* dweight;  // (C)
  float* dbias;    // (C)
};

void layer_norm_forward(const LayerNormForward& args);

// Deterministic: the order of every sum depends on the shapes alone.
void layer_norm_backward(const LayerNormBackward& args);

}  // namespace mlx_esm_kernels::cpu
