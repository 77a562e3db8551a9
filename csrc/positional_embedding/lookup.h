// What a row of the output is made of, on the CPU and in the Metal kernels.
#pragma once

#include "metal/shading/types.h"

// factor * token_table[token] + position_table[position]
struct EmbeddingLookup {
  int32_t token;
  int32_t position;  // or kPaddingPosition, a row of zeros; or kOutsidePosition, in no table
  float factor;      // 0 for a dropped token
};

MLX_ESM_KERNELS_CONSTANT int32_t kPaddingPosition = -1;
MLX_ESM_KERNELS_CONSTANT int32_t kOutsidePosition = -2;

// ESM masks 15 % of the tokens in training and shows 80 % of those as <mask>; token dropout scales
// what remains as if that share had been dropped (facebookresearch/esm, esm/model/esm1.py).
MLX_ESM_KERNELS_CONSTANT float kKeptInTraining = 1.0f - 0.15f * 0.8f;
