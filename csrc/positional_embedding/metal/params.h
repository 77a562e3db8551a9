// What host and kernels of the positional embedding share.
#pragma once

#include "metal/shading/types.h"
#include "positional_embedding/lookup.h"

// What a threadgroup of each kernel works on.
MLX_ESM_KERNELS_CONSTANT int kPlaceTokens = 256;  // of places, a thread each
MLX_ESM_KERNELS_CONSTANT int kPlaceBlocks = kPlaceTokens / kLanesOfSimdgroup;
MLX_ESM_KERNELS_CONSTANT int kForwardRows = 8;    // of fwd, a simdgroup each
MLX_ESM_KERNELS_CONSTANT int kTokenRows = 128;    // of bwd_tokens, staged by a thread each
MLX_ESM_KERNELS_CONSTANT int kTokenColumns = 32;  // of bwd_tokens, a fragment of them a simdgroup
MLX_ESM_KERNELS_CONSTANT int kTokens = 40;        // of bwd_tokens: all of a protein alphabet
MLX_ESM_KERNELS_CONSTANT int kSumElements = 256;  // of bwd_sum, a thread each
MLX_ESM_KERNELS_CONSTANT int kPositions = 8;      // of bwd_positions, a simdgroup each
MLX_ESM_KERNELS_CONSTANT int kPositionColumns = 256;  // of bwd_positions, eight a lane

struct EmbeddingPlaceParams {
  int32_t B, L;
  int32_t vocab, positions;
  int64_t padding_idx, mask_idx;
};

// Of 32 tokens, a lane's each, those that are not padding; in threadgroup memory of places. Their
// segment ids lie in [lowest, highest], which is empty where there is none.
struct PlaceBlock {
  int64_t lowest, highest;
  int32_t tokens;
  int32_t masked;
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
