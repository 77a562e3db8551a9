// What host and kernel of rotary share.
#pragma once

#include "metal/shading/types.h"

MLX_ESM_KERNELS_CONSTANT int kTurnThreads = 256;
MLX_ESM_KERNELS_CONSTANT int kTurnPairs = 4;  // of a thread

// Strides in elements.
struct RotaryParams {
  int32_t H, L, D;
  float sign;  // of the angles
  int64_t x_b, x_h, x_l, x_d;
  int64_t out_b, out_h, out_l;
};
