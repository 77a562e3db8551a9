// The parts of the positional embedding that are compiled once per instruction set.
#pragma once

#include "positional_embedding/cpu/compute.h"
#include "positional_embedding/lookup.h"

namespace mlx_esm_kernels::cpu {

// Rows of (B L, C) by their position: those at p are rows[starts[p]] ... rows[starts[p + 1] - 1],
// in the order of the batch.
struct RowsByPosition {
  const int64_t* starts;
  const int64_t* rows;
};

struct EmbeddingKernels {
  // Rows [begin, end) of (B L, C). `scratch` holds 2 C floats.
  void (*forward)(const EmbeddingForward&, const EmbeddingLookup* lookups, int64_t begin,
                  int64_t end, float* scratch);

  // Rows [begin, end) of dposition_table; `tokens`, (vocab, C), becomes what the rows of dout at
  // these positions add to dtoken_table. `scratch` holds 2 C floats.
  void (*backward)(const EmbeddingBackward&, const EmbeddingLookup* lookups, RowsByPosition,
                   int64_t begin, int64_t end, float* tokens, float* scratch);

  // Row `token` of dtoken_table, the sum of that row of `count` tables like `tokens` above.
  // `scratch` holds C floats.
  void (*sum_tokens)(const EmbeddingBackward&, const float* tables, int64_t count, int64_t token,
                     float* scratch);
};

MLX_ESM_KERNELS_DECLARE(EmbeddingKernels, embedding_kernels)

}  // namespace mlx_esm_kernels::cpu
