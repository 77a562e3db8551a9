// What host and kernels of masked attention share.
#pragma once

#include "metal/shading/types.h"

MLX_ESM_KERNELS_CONSTANT int kMaxHeadDim = 128;    // that the kernels serve
MLX_ESM_KERNELS_CONSTANT int kStagedPadding = 16;  // bytes after a row in threadgroup memory
// Of the block map: rows and columns of a block, and blocks of columns of a word, a bit each.
MLX_ESM_KERNELS_CONSTANT int kBlock = 32;
MLX_ESM_KERNELS_CONSTANT int kBlocksOfWord = 32;
MLX_ESM_KERNELS_CONSTANT int kMapRows = 4;  // blocks of rows of a threadgroup, a simdgroup each
// Of the last sum of the bias gradients: columns of a threadgroup, and threads that share one.
MLX_ESM_KERNELS_CONSTANT int kBiasColumns = 32;
MLX_ESM_KERNELS_CONSTANT int kBiasThreads = 8;

// Of a launch that runs a part of its grid: where the part begins.
struct GridOffset {
  int32_t x, y, z;
};

// In elements.
struct HeadStrides {
  int64_t b, h, l, d;
};

struct AttentionForwardParams {
  int32_t B, H, L;
  int32_t words;  // that a row of the block map has
  float scale;
  GridOffset first;
  HeadStrides q, k, v, o;
};

struct AttentionBackwardParams {
  int32_t B, H, L;
  int32_t words;
  float scale;
  int32_t groups;  // of one head, in bwd_dq
  GridOffset first;
  int32_t unused;
  HeadStrides q, k, v, o, dout, dq, dk, dv;
};

struct AttentionMapParams {
  int32_t B, L;
  int32_t words;
};

struct AttentionBiasParams {
  int32_t B, H;
  int32_t parts;  // partial sums of each batch row and head
};
