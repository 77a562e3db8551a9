// The parts of attention that are compiled once per instruction set. Maths: masked_attention.md.
#pragma once

#include "masked_attention/masked_attention_compute.h"

namespace mlx_esm_kernels::cpu {

// The rows of one head that attend to each other.
struct Group {
  int b, h;
  const int32_t* positions;  // ascending
  int length;
};

struct AttentionForwardKernels {
  int queries;  // how many one task takes
  int64_t (*scratch_size)(int D);

  // Queries [begin, end) of the group, all of its keys.
  void (*forward)(const AttentionForward&, const Group&, int begin, int end, float* scratch);
};

// Backward's memory that all tasks share.
struct AttentionWorkspace {
  float* delta;           // (B, H, L): rowsum(dout * out)
  View dq;                // float32: dq itself, or its accumulator where dq is of half precision
  float* partial_bias_k;  // (B, H, D), or nullptr
  float* partial_bias_v;
};

struct AttentionBackwardKernels {
  int panel;                // queries that share a turn
  int (*key_chunk)(int D);  // keys that one task owns
  int64_t (*scratch_size)(int D);

  // delta of a head's rows and the share of the bias in dq and its own gradients. The first
  // `occupied` positions are real; gradients of the others are set to zero.
  // `scratch` holds 3 (D + 16) floats.
  void (*prepare)(const AttentionBackward&, const AttentionWorkspace&, const Group& row,
                  int occupied, float* scratch);

  // Keys [begin, end) of the group, all of its queries; chunk = begin / key_chunk. dk and dv are
  // complete afterwards. Panel p of dq is added to when turns[p] == chunk, then turns[p] moves on.
  void (*backward)(const AttentionBackward&, const AttentionWorkspace&, const Group&, int begin,
                   int end, int32_t* turns, float* scratch);

  // Rounds the float32 accumulator of dq to its dtype.
  void (*finish)(const AttentionBackward&, const AttentionWorkspace&, int b, int h);
};

namespace baseline {
extern const AttentionForwardKernels attention_forward_kernels;
extern const AttentionBackwardKernels attention_backward_kernels;
}  // namespace baseline

namespace avx2 {
extern const AttentionForwardKernels attention_forward_kernels;
extern const AttentionBackwardKernels attention_backward_kernels;
}  // namespace avx2

namespace avx512 {
extern const AttentionForwardKernels attention_forward_kernels;
extern const AttentionBackwardKernels attention_backward_kernels;
}  // namespace avx512

}  // namespace mlx_esm_kernels::cpu
