// What host and kernels of masked attention share.
#pragma once

#include "metal/shading/types.h"

// In elements.
struct HeadStrides {
  int64_t b, h, l, d;
};

struct AttentionForwardParams {
  int32_t B, H, L;
  int32_t words;  // of 32 blocks, that a row of the block map has
  float scale;
  int32_t unused;
  HeadStrides q, k, v, o;
};

struct AttentionBackwardParams {
  int32_t B, H, L;
  int32_t words;
  float scale;
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
