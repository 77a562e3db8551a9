// The parts of the positional embedding that are compiled once per instruction set.
#pragma once

#include "positional_embedding/positional_embedding_compute.h"

namespace mlx_esm_kernels::cpu {

// What one output row is made of: scale * token_table[token] + position_table[position].
struct Source {
  int32_t token, position;  // position < 0: padding, the row is zero
  float scale;              // 0 for a dropped token
};

struct EmbeddingKernels {
  // Rows [begin, end) of (B L, C). `scratch` holds 2 C floats.
  void (*forward)(const EmbeddingForward&, const Source* sources, int64_t begin, int64_t end,
                  float* scratch);

  // Columns [begin, end) of both gradients. `scratch` holds (vocab + positions + 1) (end - begin).
  void (*backward)(const EmbeddingBackward&, const Source* sources, int begin, int end,
                   float* scratch);
};

MLX_ESM_KERNELS_DECLARE(EmbeddingKernels, embedding_kernels)

}  // namespace mlx_esm_kernels::cpu
