// y = activation(x W^T + b) on plain memory: what eval_cpu calls. Free of MLX and of C++ library
// headers (see cpu/vector.h).
#pragma once

#include <stdint.h>

#include "cpu/strided_rows.h"
#include "cpu/target.h"

namespace mlx_esm_kernels::cpu {

struct Matrix : StridedRows {
  int64_t rows, columns;
};

// x is (M, K), weight is (N, K), bias is (N) in float32 or nullptr. Outputs are contiguous. The
// weight's dtype is that of all else, or float32: then it is contiguous, as its gradient is
// float32.
struct LinearInputs {
  Dtype dtype;
  Matrix x, weight;
  Dtype weight_dtype;
  bool gelu;
};

struct LinearForward : LinearInputs {
  const float* bias;
  const void* residual;  // (M, N), contiguous, or nullptr: added after the activation
  void* y;               // (M, N)
  void* pre;             // (M, N): the values before GELU; nullptr without it, and where no one
                         // will ask for a gradient
};

// Gradients that are not wanted are nullptr.
struct LinearBackward : LinearInputs {
  Matrix dy;        // (M, N)
  const void* pre;  // (M, N), contiguous; nullptr without GELU
  void* dx;         // (M, K)
  void* dweight;    // (N, K)
  float* dbias;     // (N)
};

// Layers of one x; a call works on all of them at once.
void linear_forward(const LinearForward* layers, int count);

// All layers' dx is one array, which takes in the gradients through all of them. Deterministic: the
// order of every sum depends on the shapes alone.
void linear_backward(const LinearBackward* layers, int count);

}  // namespace mlx_esm_kernels::cpu
