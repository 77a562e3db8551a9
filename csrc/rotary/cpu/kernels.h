// The parts of rotary that are compiled once per instruction set.
#pragma once

#include "rotary/cpu/compute.h"

namespace mlx_esm_kernels::cpu {

struct RotaryKernels {
  // The tokens [begin, end) of the B L; scratch holds rotary_scratch(H, D) floats.
  void (*turn)(const RotaryTurn&, int64_t begin, int64_t end, float* scratch);
};

// A row of all heads between margins of half a head, and the turn of heads side by side.
constexpr int64_t kMostLanes = 16;
inline int64_t rotary_scratch(int64_t H, int64_t D) {
  return (H + 1) * D + 3 * D * kMostLanes + kMostLanes;
}

MLX_ESM_KERNELS_DECLARE(RotaryKernels, rotary_kernels)

}  // namespace mlx_esm_kernels::cpu
