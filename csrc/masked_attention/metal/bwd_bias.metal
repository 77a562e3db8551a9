// Backward, the last step of dbias_k and dbias_v: parts are added in an order that is always the
// same, so the bits do not depend on which came first.
#include "masked_attention/metal/params.h"
#include "metal/shading/fragment.h"

constant constexpr int THREADS = kBiasThreads * kBiasColumns;
static_assert(kBiasColumns == kLanesOfSimdgroup, "a simdgroup reads whole rows");

// parts: (2, B, H, parts, HEAD_DIM). dbias_k, dbias_v: (H, HEAD_DIM). Grid: (columns in steps of
// kBiasColumns, H, 2). Thread t of a column adds the slots t, t + kBiasThreads, ...; what they
// found is added in a tree.
[[kernel, max_total_threads_per_threadgroup(THREADS)]] void masked_attention_bwd_bias(
    device const float* parts [[buffer(0)]], device float* dbias_k [[buffer(1)]],
    device float* dbias_v [[buffer(2)]], constant AttentionBiasParams& p [[buffer(3)]],
    uint3 group [[threadgroup_position_in_grid]], uint thread_index [[thread_index_in_threadgroup]],
    uint simdgroup_index [[simdgroup_index_in_threadgroup]],
    uint lane [[thread_index_in_simdgroup]]) {
  threadgroup float sums[THREADS];
  const int column = int(group.x) * kBiasColumns + int(lane);
  float sum = 0.0f;
  if (column < HEAD_DIM) {
    for (int b = 0; b < p.B; ++b) {
      const int64_t head = (int64_t(group.z) * p.B + b) * p.H + int64_t(group.y);
      device const float* at = parts + head * p.parts * HEAD_DIM + column;
      for (int i = int(simdgroup_index); i < p.parts; i += kBiasThreads) {
        sum += at[int64_t(i) * HEAD_DIM];
      }
    }
  }
  sums[thread_index] = sum;
  for (int half_way = kBiasThreads / 2; half_way > 0; half_way /= 2) {
    threadgroup_barrier(mem_flags::mem_threadgroup);  // the sums of the last step are there
    if (int(simdgroup_index) < half_way) {
      sums[thread_index] += sums[int(thread_index) + half_way * kBiasColumns];
    }
  }
  if (simdgroup_index == 0u && column < HEAD_DIM) {
    const int64_t to = int64_t(group.y) * HEAD_DIM + column;
    if (group.z == 0u) {
      dbias_k[to] = sums[lane];
    } else {
      dbias_v[to] = sums[lane];
    }
  }
}
