// For every token the row of each table, and its factor: places within segments, token dropout.
// Segments may be interleaved, so a token's place is the count of its own segment before it. What
// is counted at once is a block of 32 tokens, unless it may hold the token's segment and another.
#include "metal/shading/types.h"
#include "positional_embedding/metal/params.h"

using namespace metal;

constant bool HAS_SEGMENTS [[function_constant(0)]];
constant bool TOKEN_DROPOUT [[function_constant(1)]];

// The segment of a token of the batch row that `ids` belong to; 0 for padding.
inline long segment_of(device const long* ids, long token, int l, long padding_idx) {
  if (token == padding_idx) {
    return 0l;
  }
  if (HAS_SEGMENTS) {
    return ids[l];
  }
  return 1l;
}

struct Counts {
  int before;  // of the segment, up to and with the token itself
  int all;
  int masked;
};

// No more than any of a simdgroup's x: simd_min has no 64 bits, so halves are taken apart. It is
// the lowest of them where their upper halves are the same.
inline long bound_below(long x) {
  const int upper = simd_min(int(x >> 32));
  const uint lower = simd_min(uint(x));
  return long(ulong(upper) << 32 | ulong(lower));
}

// What a simdgroup's 32 tokens are, of which a lane has one; id 0 is padding, and counts for
// nothing.
inline PlaceBlock block_of(long id, int masked) {
  const bool counts = id != 0l;
  PlaceBlock block;
  block.lowest = bound_below(counts ? id : 0x7fffffffffffffffl);
  block.highest = ~bound_below(counts ? ~id : 0x7fffffffffffffffl);
  block.tokens = simd_sum(counts ? 1 : 0);
  block.masked = simd_sum(counts ? masked : 0);
  return block;
}

// Counts the tokens of segment `id` in the block that begins at `begin`; `own` is the block of the
// token itself, at l. Which of the three ways is taken is the same for a whole simdgroup.
inline void add_block(thread Counts& counts, PlaceBlock block, threadgroup const long* ids,
                      threadgroup const int* masks, int begin, PlaceBlock own, int own_begin,
                      long id, int l) {
  if (block.highest < own.lowest || own.highest < block.lowest) {
    return;
  }
  if (block.lowest == block.highest && begin != own_begin) {
    if (block.lowest == id) {
      counts.all += block.tokens;
      counts.masked += block.masked;
      counts.before += begin < own_begin ? block.tokens : 0;
    }
    return;
  }
  for (int i = 0; i < kLanesOfSimdgroup; ++i) {
    if (ids[i] == id) {
      counts.all += 1;
      counts.masked += masks[i];
      counts.before += begin + i <= l ? 1 : 0;
    }
  }
}

// Grid: (tiles of kPlaceTokens, 1, B). Without segments their buffer is bound to the tokens,
// unread.
[[kernel, max_total_threads_per_threadgroup(kPlaceTokens)]] void positional_embedding_places(
    device const long* tokens [[buffer(0)]], device const long* segment_ids [[buffer(1)]],
    device EmbeddingLookup* lookups [[buffer(2)]], constant EmbeddingPlaceParams& p [[buffer(3)]],
    uint3 group [[threadgroup_position_in_grid]], uint thread_index [[thread_index_in_threadgroup]],
    uint simdgroup_index [[simdgroup_index_in_threadgroup]],
    uint lane [[thread_index_in_simdgroup]]) {
  threadgroup long ids[kPlaceTokens];
  threadgroup int masks[kPlaceTokens];
  threadgroup PlaceBlock blocks[kPlaceBlocks];
  const int64_t batch_row = int64_t(group.z) * p.L;
  const int own_begin = int(group.x) * kPlaceTokens + int(simdgroup_index) * kLanesOfSimdgroup;
  const int l = own_begin + int(lane);
  const bool exists = l < p.L;

  long token = p.padding_idx;
  if (exists) {
    token = tokens[batch_row + l];
  }
  const long id = segment_of(segment_ids + batch_row, token, l, p.padding_idx);
  const PlaceBlock own = block_of(id, 0);
  Counts counts;
  counts.before = 0;
  counts.all = 0;
  counts.masked = 0;
  for (int first = 0; first < p.L; first += kPlaceTokens) {
    threadgroup_barrier(mem_flags::mem_threadgroup);  // the last tile is counted
    const int other = first + int(thread_index);
    long other_token = p.padding_idx;
    if (other < p.L) {
      other_token = tokens[batch_row + other];
    }
    const long other_id = segment_of(segment_ids + batch_row, other_token, other, p.padding_idx);
    const int masked = other_token == p.mask_idx ? 1 : 0;
    const PlaceBlock block = block_of(other_id, masked);
    ids[thread_index] = other_id;
    masks[thread_index] = masked;
    if (lane == 0u) {
      blocks[simdgroup_index] = block;
    }
    threadgroup_barrier(mem_flags::mem_threadgroup);
    for (int i = 0; i < kPlaceBlocks; ++i) {
      add_block(counts, blocks[i], ids + i * kLanesOfSimdgroup, masks + i * kLanesOfSimdgroup,
                first + i * kLanesOfSimdgroup, own, own_begin, id, l);
    }
  }
  if (!exists) {
    return;
  }
  EmbeddingLookup lookup;
  lookup.token = 0;
  lookup.position = kPaddingPosition;
  lookup.factor = 0.0f;
  if (id != 0l) {
    const long position = p.padding_idx + long(counts.before);
    const bool inside = token >= 0l && token < long(p.vocab) && position < long(p.positions);
    const float kept = 1.0f - float(counts.masked) / float(counts.all);
    lookup.position = kOutsidePosition;
    if (inside) {
      lookup.token = int(token);
      lookup.position = int(position);
    }
    lookup.factor = 1.0f;
    if (TOKEN_DROPOUT) {
      const bool dropped = token == p.mask_idx || counts.masked == counts.all;
      lookup.factor = dropped ? 0.0f : kKeptInTraining / kept;
    }
  }
  lookups[batch_row + l] = lookup;
}
