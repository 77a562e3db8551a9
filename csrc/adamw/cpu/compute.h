// A step of AdamW on plain memory: what eval_cpu calls. Free of MLX.
#pragma once

#include <cstdint>
#include <vector>

#include "adamw/cpu/kernels.h"

namespace mlx_esm_kernels::cpu {

struct Numbers {
  const float* data;
  int64_t size;
};

// The L2 norm over all of them. Deterministic: chunks and the order of every sum depend on the
// sizes alone.
float gradient_norm(const std::vector<Numbers>& gradients);

struct AdamWStep {
  float beta_1, beta_2, weight_decay, clip_norm;
  const float* rates;  // (3): see adamw.md
  const float* norm;   // (1): of all gradients before clipping
  std::vector<AdamWParameter> parameters;
};

void adamw_step(const AdamWStep& step);

}  // namespace mlx_esm_kernels::cpu
