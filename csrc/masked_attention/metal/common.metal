// What the three attention kernels share. The host defines, before this text:
//   ELEMENT        float, half or bfloat
//   HEAD_DIM       D, a multiple of 8
//   ROWS           rows that a threadgroup owns
//   TILE           rows that it stages at a time: 8, 16 or 32
//   ROW_FRAGMENTS  a simdgroup's rows in eights: 1 or 2. With 2 what is read from threadgroup
//                  memory serves twice as many products
//   HELD           1 where bwd_dkv's keys and values fit a simdgroup's registers beside their
//                  gradients, 0 where they lie in threadgroup memory
//   FENCED         1 where no load of a fragment is moved across products
#pragma once

#include "masked_attention/metal/params.h"
#include "metal/shading/fragment.h"

constant bool HAS_SEGMENTS [[function_constant(0)]];
constant bool HAS_BIAS [[function_constant(1)]];
// All arrays have unit stride in D and rows that begin at a multiple of four elements.
constant bool VECTORS [[function_constant(2)]];

constant constexpr int FRAGMENTS = HEAD_DIM / kFragment;
constant constexpr int SIMDGROUP_ROWS = ROW_FRAGMENTS * kFragment;
constant constexpr int THREADS = ROWS / SIMDGROUP_ROWS * kLanesOfSimdgroup;
static_assert(TILE <= THREADS && ROWS <= THREADS, "ids are staged in one pass");
static_assert(THREADS > kLanesOfSimdgroup, "Apple's compiler has erred at exactly 32 threads");
// More than a row: it keeps the rows of a column in different banks.
constant constexpr int STAGED = HEAD_DIM + kStagedPadding / int(sizeof(ELEMENT));
// Exponentials are fast::exp2, one instruction, as in MLX's own attention: MLX compiles in its safe
// math mode, where plain exp2 is the slower one that keeps denormals.
constant constexpr float LOG2E = 1.4426950408889634f;

// Nothing is computed here: the compiler may not move loads of fragments across it.
inline void fence() {
#if FENCED
  simdgroup_barrier(mem_flags::mem_none);
#endif
}

// Which blocks of columns a threadgroup's rows meet, a word of them.
struct Blocks {
  uint any;   // shares a segment with some row
  uint full;  // is of one segment with all rows
};

// Without segments: all blocks; one that reaches beyond L is not full. Rows beyond L hold zeros,
// and nothing of them is kept.
inline Blocks blocks_in_range(int word, int L) {
  const int whole = L / kBlock - word * kBlocksOfWord;
  const int started = (L + kBlock - 1) / kBlock - word * kBlocksOfWord;
  const uint all = 0xffffffffu;
  Blocks blocks;
  blocks.any = started >= kBlocksOfWord ? all : (1u << uint(started)) - 1u;
  blocks.full = whole >= kBlocksOfWord ? all : whole <= 0 ? 0u : (1u << uint(whole)) - 1u;
  return blocks;
}

// With segments: `map` is (B, blocks, words, 2), any and full.
inline Blocks blocks_of_segments(device const uint* map, int b, int first_row, int word, int words,
                                 int L) {
  const int count = (L + kBlock - 1) / kBlock;
  const int first = first_row / kBlock;
  const int last = min(first_row + ROWS - 1, L - 1) / kBlock;
  Blocks blocks;
  blocks.any = 0u;
  blocks.full = 0xffffffffu;
  for (int block = first; block <= last; ++block) {
    const int64_t at = ((int64_t(b) * count + block) * words + word) * 2;
    blocks.any |= map[at];
    blocks.full &= map[at + 1];
  }
  return blocks;
}

// The tiles of columns that a threadgroup's rows meet, in ascending order.
struct Walk {
  Blocks blocks;  // of the word, those to come
  int word;
  int first, end;  // of the tile, and of its block
  bool partial;    // some pair of row and column is of different segments, or beyond L
};

inline Walk start_walk() {
  Walk walk;
  walk.blocks.any = 0u;
  walk.blocks.full = 0u;
  walk.word = -1;
  walk.first = 0;
  walk.end = 0;
  walk.partial = false;
  return walk;
}

// The same in every thread of the threadgroup, so that barriers may stand in a loop over it.
inline bool next_tile(thread Walk& walk, device const uint* map, int b, int first_row, int words,
                      int L) {
  walk.first += TILE;
  if (walk.first < walk.end) {
    return true;
  }
  while (walk.blocks.any == 0u) {
    walk.word += 1;
    if (walk.word == words) {
      return false;
    }
    walk.blocks = blocks_in_range(walk.word, L);
    if (HAS_SEGMENTS) {
      walk.blocks = blocks_of_segments(map, b, first_row, walk.word, words, L);
    }
  }
  const uint bit = ctz(walk.blocks.any);
  walk.blocks.any &= walk.blocks.any - 1u;
  walk.partial = (walk.blocks.full >> bit & 1u) == 0u;
  walk.first = (walk.word * kBlocksOfWord + int(bit)) * kBlock;
  walk.end = min(walk.first + kBlock, L);
  return true;
}

// The segment of a row of the batch row that `ids` belong to; 0 beyond L.
inline long segment_at(device const long* ids, int l, int L) {
  if (l >= L) {
    return 0l;
  }
  if (HAS_SEGMENTS) {
    return ids[l];
  }
  return 1l;
}

inline void stage_ids(threadgroup long* to, device const long* ids, int first, int count, int L,
                      uint thread_index) {
  if (thread_index < uint(count)) {
    to[thread_index] = segment_at(ids, first + int(thread_index), L);
  }
}

// Stages rows [first, first + TILE) of one head. In a partial tile the rows of padding, and those
// beyond L, become zeros: what they hold may be NaN, and 0 * NaN is NaN.
inline void stage(threadgroup Element4* tile, device const ELEMENT* head, int64_t row_stride,
                  int64_t stride, int first, bool partial, threadgroup const long* ids,
                  uint thread_index) {
  constexpr int chunks = HEAD_DIM / 4;
  for (int i = int(thread_index); i < TILE * chunks; i += THREADS) {
    const int row = i / chunks;
    const int chunk = i % chunks;
    Element4 x = Element4(ELEMENT(0.0f));
    if (!partial || ids[row] != 0l) {
      device const ELEMENT* from = head + int64_t(first + row) * row_stride;
      if (VECTORS) {
        x = reinterpret_cast<device const Element4*>(from)[chunk];
      } else {
        from += int64_t(chunk * 4) * stride;
        x = Element4(from[0], from[stride], from[2 * stride], from[3 * stride]);
      }
    }
    tile[row * (STAGED / 4) + chunk] = x;
  }
}

// A lane's two elements of a row in device memory; zeros where the row is padding.
inline Element2 load_pair(device const ELEMENT* row, int64_t stride, int column, long id) {
  if (id == 0l) {
    return Element2(ELEMENT(0.0f));
  }
  if (VECTORS) {
    return *reinterpret_cast<device const Element2*>(row + column);
  }
  device const ELEMENT* from = row + int64_t(column) * stride;
  return Element2(from[0], from[stride]);
}

// Zeros where the row is padding, whatever x is.
inline void store_pair(device ELEMENT* row, int64_t stride, int column, float2 x, long id) {
  const float2 kept = id != 0l ? x : float2(0.0f);
  if (VECTORS) {
    *reinterpret_cast<device Element2*>(row + column) = Element2(kept);
  } else {
    device ELEMENT* to = row + int64_t(column) * stride;
    to[0] = ELEMENT(kept.x);
    to[stride] = ELEMENT(kept.y);
  }
}

// Both elements, 0 where the column is of another segment than the row.
inline float2 select_same(float2 x, threadgroup const long* ids, int column, long id) {
  return float2(ids[column] == id ? x.x : 0.0f, ids[column + 1] == id ? x.y : 0.0f);
}

// Runs of one segment among a simdgroup's own rows. In a partial tile a product that sums over
// columns is made for one run at a time, with zeros in place of what columns of other segments
// hold: their weight is 0, but 0 times infinity is NaN in the product.
struct Runs {
  uint starts;  // a bit for each row that begins one, of those to come
  int first, end;
  long id;
};

inline Runs start_runs(threadgroup const long* own_ids) {
  Runs runs;
  runs.starts = 1u;
  for (int r = 1; r < SIMDGROUP_ROWS; ++r) {
    runs.starts |= own_ids[r] != own_ids[r - 1] ? 1u << uint(r) : 0u;
  }
  runs.first = 0;
  runs.end = 0;
  runs.id = 0l;
  return runs;
}

// The next run that is not padding; the same in all lanes of the simdgroup.
inline bool next_run(thread Runs& runs, threadgroup const long* own_ids) {
  while (runs.starts != 0u) {
    runs.first = int(ctz(runs.starts));
    runs.starts &= runs.starts - 1u;
    runs.end = runs.starts == 0u ? SIMDGROUP_ROWS : int(ctz(runs.starts));
    runs.id = own_ids[runs.first];
    if (runs.id != 0l) {
      return true;
    }
  }
  return false;
}

// c += a b in the run's rows alone, of the eight from `first` on: in others a zero of `a` may have
// met an infinity of `b`.
inline void accumulate_in_run(thread float2& c, float2 a, float2 b, thread const Runs& runs,
                              int first, int row) {
  if (runs.end <= first || runs.first >= first + kFragment) {
    return;  // the whole simdgroup
  }
  float2 sum = c;
  multiply_accumulate(sum, a, b);
  c = first + row >= runs.first && first + row < runs.end ? sum : c;
}

// A fragment whose rows are columns of the scores; zeros where they are of another segment.
inline float2 load_of_segment(threadgroup const ELEMENT* at, int stride, int row, int column,
                              bool same) {
  return same ? load_fragment(at, stride, row, column) : float2(0.0f);
}
