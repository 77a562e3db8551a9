// Masked attention on plain memory: what eval_cpu calls. Free of MLX, so that it can be built into
// sanitised tests; free of C++ library headers, because the kernels of each instruction set include
// it (see cpu/vector.h).
#pragma once

#include <stdint.h>

#include "cpu/target.h"

namespace mlx_esm_kernels::cpu {

// A (B, H, L, D) array with strides in elements. Inputs are never written.
struct View {
  void* data;
  int64_t b, h, l, d;
};

struct AttentionInputs {
  int B, H, L, D;
  Dtype dtype;  // of q, k, v, out and all gradients except those of the biases
  float scale;
  View q, k, v;
  const int64_t* segment_ids;  // (B, L) or nullptr
  const float* bias_k;         // (H, D) or nullptr, with bias_v
  const float* bias_v;
};

// lse is (B, H, L): the logarithm to base 2 of the sum over keys of exp(score); 0 on padding rows.
struct AttentionForward : AttentionInputs {
  View out;
  float* lse;
};

struct AttentionBackward : AttentionInputs {
  View out, dout;
  const float* lse;
  View dq, dk, dv;
  float* dbias_k;  // (H, D), or nullptr
  float* dbias_v;
};

void attention_forward(const AttentionForward& args);

// Deterministic: the order of every sum depends on the shapes and segments alone, never on how many
// threads run.
void attention_backward(const AttentionBackward& args);

}  // namespace mlx_esm_kernels::cpu
