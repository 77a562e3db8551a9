// Backward, the last step of dbias_k and dbias_v: parts are added in the order of the batch, so the
// bits do not depend on which came first.
#include "masked_attention/metal/params.h"
#include "metal/shading/fragment.h"

// parts: (2, B, H, parts, HEAD_DIM). dbias_k, dbias_v: (H, HEAD_DIM). Grid: (1, H, 2), a thread for
// each element of the largest HEAD_DIM.
[[kernel, max_total_threads_per_threadgroup(kMaxHeadDim)]] void masked_attention_bwd_bias(
    device const float* parts [[buffer(0)]], device float* dbias_k [[buffer(1)]],
    device float* dbias_v [[buffer(2)]], constant AttentionBiasParams& p [[buffer(3)]],
    uint3 group [[threadgroup_position_in_grid]],
    uint thread_index [[thread_index_in_threadgroup]]) {
  if (thread_index >= uint(HEAD_DIM)) {
    return;
  }
  float sum = 0.0f;
  for (int b = 0; b < p.B; ++b) {
    const int64_t head = (int64_t(group.z) * p.B + b) * p.H + int64_t(group.y);
    device const float* at = parts + head * p.parts * HEAD_DIM + thread_index;
    for (int i = 0; i < p.parts; ++i) {
      sum += at[int64_t(i) * HEAD_DIM];
    }
  }
  const int64_t to = int64_t(group.y) * HEAD_DIM + thread_index;
  if (group.z == 0u) {
    dbias_k[to] = sum;
  } else {
    dbias_v[to] = sum;
  }
}
