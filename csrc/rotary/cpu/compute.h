// Rotary positions on plain memory: what eval_cpu calls. Free of MLX and of C++ library headers
// (see cpu/vector.h).
#pragma once

#include <stdint.h>

#include "cpu/target.h"

namespace mlx_esm_kernels::cpu {

// (B, H, L, D) with strides in elements.
struct Heads {
  void* data;
  int64_t b_stride, h_stride, l_stride, d_stride;
};

struct RotaryTurn {
  int B, H, L, D;
  Dtype dtype;
  bool back;
  Heads x, out;         // out has unit strides in D
  const float* angles;  // (B, L, D): cosines, then sines
};

void rotary_turn(const RotaryTurn& args);

}  // namespace mlx_esm_kernels::cpu
