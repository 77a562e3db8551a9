// The block map: for each block of 32 rows, which blocks of 32 columns share a segment with it. All
// heads use it, forward and backward: to share a segment is symmetric.
#include "masked_attention/metal/params.h"
#include "metal/shading/fragment.h"

static_assert(kBlock == kLanesOfSimdgroup && kBlocksOfWord == kLanesOfSimdgroup, "one a lane");

// A simdgroup fills one word: 32 blocks of columns, a lane each. A threadgroup has several: Apple's
// compiler has been seen to get kernels wrong that are bound to exactly 32 threads. Grid: (words,
// blocks in steps of kMapRows, B).
[[kernel, max_total_threads_per_threadgroup(kMapRows* kLanesOfSimdgroup)]] void
masked_attention_map(device const long* segment_ids [[buffer(0)]], device uint* map [[buffer(1)]],
                     constant AttentionMapParams& p [[buffer(2)]],
                     uint3 group [[threadgroup_position_in_grid]],
                     uint thread_index [[thread_index_in_threadgroup]],
                     uint simdgroup_index [[simdgroup_index_in_threadgroup]],
                     uint lane [[thread_index_in_simdgroup]]) {
  threadgroup long row_ids[kMapRows * kBlock];
  device const long* ids = segment_ids + int64_t(group.z) * p.L;
  const int row = int(group.y) * kMapRows * kBlock + int(thread_index);
  long row_id = 0l;
  if (row < p.L) {
    row_id = ids[row];
  }
  row_ids[thread_index] = row_id;
  threadgroup_barrier(mem_flags::mem_threadgroup);

  threadgroup const long* own_ids = row_ids + int(simdgroup_index) * kBlock;
  const int first = (int(group.x) * kBlocksOfWord + int(lane)) * kBlock;
  bool any = false;
  bool full = true;
  for (int c = 0; c < kBlock; ++c) {
    long id = 0l;
    if (first + c < p.L) {
      id = ids[first + c];
    }
    for (int r = 0; r < kBlock; ++r) {
      const bool same = id != 0l && id == own_ids[r];
      any = any || same;
      full = full && same;
    }
  }
  const uint any_word = simd_or(any ? 1u << lane : 0u);
  const uint full_word = simd_or(full ? 1u << lane : 0u);
  const int blocks = (p.L + kBlock - 1) / kBlock;
  const int block = int(group.y) * kMapRows + int(simdgroup_index);
  if (lane == 0u && block < blocks) {
    const int64_t at =
        ((int64_t(group.z) * blocks + int64_t(block)) * p.words + int64_t(group.x)) * 2;
    map[at] = any_word;
    map[at + 1] = full_word;
  }
}
