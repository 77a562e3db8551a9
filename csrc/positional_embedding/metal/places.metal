// For every token the row of each table, and its factor: places within segments, token dropout.
// Segments may be interleaved, so a token's place is the count of its own segment before it.
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

// Grid: (tiles of kPlaceTokens, 1, B). Without segments their buffer is bound to the tokens,
// unread.
[[kernel, max_total_threads_per_threadgroup(kPlaceTokens)]] void positional_embedding_places(
    device const long* tokens [[buffer(0)]], device const long* segment_ids [[buffer(1)]],
    device EmbeddingLookup* lookups [[buffer(2)]], constant EmbeddingPlaceParams& p [[buffer(3)]],
    uint3 group [[threadgroup_position_in_grid]],
    uint thread_index [[thread_index_in_threadgroup]]) {
  threadgroup long ids[kPlaceTokens];
  threadgroup int masks[kPlaceTokens];
  const int64_t batch_row = int64_t(group.z) * p.L;
  const int l = int(group.x) * kPlaceTokens + int(thread_index);
  const bool exists = l < p.L;

  long token = p.padding_idx;
  if (exists) {
    token = tokens[batch_row + l];
  }
  const long id = segment_of(segment_ids + batch_row, token, l, p.padding_idx);
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
    ids[thread_index] = segment_of(segment_ids + batch_row, other_token, other, p.padding_idx);
    masks[thread_index] = other_token == p.mask_idx ? 1 : 0;
    threadgroup_barrier(mem_flags::mem_threadgroup);
    const int count = min(kPlaceTokens, p.L - first);
    for (int i = 0; i < count; ++i) {
      if (ids[i] == id) {
        counts.all += 1;
        counts.masked += masks[i];
        counts.before += first + i <= l ? 1 : 0;
      }
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
