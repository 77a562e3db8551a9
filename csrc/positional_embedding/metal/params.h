// What host and kernels of the positional embedding share.
#pragma once

#include "metal/shading/types.h"

// What one row of the output is made of: factor * token_table[token] + position_table[position].
struct EmbeddingSource {
  int32_t token;
  int32_t position;  // kPaddingPosition: the row is 0. kOutsidePosition: it has no source
  float factor;      // 0 for a dropped token
};

#ifdef __METAL_VERSION__
#define MLX_ESM_KERNELS_CONSTANT constant constexpr
#else
#define MLX_ESM_KERNELS_CONSTANT constexpr
#endif
MLX_ESM_KERNELS_CONSTANT int32_t kPaddingPosition = -1;
MLX_ESM_KERNELS_CONSTANT int32_t kOutsidePosition = -2;

struct EmbeddingPlaceParams {
  int32_t B, L;
  int32_t vocab, positions;
  int64_t padding_idx, mask_idx;
};

// Strides in elements.
struct EmbeddingForwardParams {
  int64_t rows;  // B L
  int32_t C;
  int32_t unused;
  int64_t token_row, token_column, position_row, position_column;
};

struct EmbeddingBackwardParams {
  int32_t B, L;
  int32_t C;
  int32_t vocab, positions;
  int32_t chunk;  // rows of a part of the token table's gradient
  int32_t chunks;
  int32_t unused;
  int64_t dout_b, dout_l, dout_c;
};
