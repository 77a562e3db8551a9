// Panels of queries, and how the rows of a group are brought into them. Compiled once per
// instruction set.
//
// Queries lie in the lanes: scores are kept transposed, S^T = K Q^T (keys x queries), so that
// maximum, sum and rescaling are vertical operations and no vector is ever reduced.
#pragma once

#include "cpu/matrix.h"
#include "cpu/rows.h"
#include "masked_attention/masked_attention_kernels.h"

namespace mlx_esm_kernels::cpu::CPU_TARGET {

constexpr int kWidth = kTileVectors * kLanes;  // queries of a panel, which are worked on together

inline int round_up(int n) {
  return (n + kLanes - 1) / kLanes * kLanes;
}

inline int smaller(int a, int b) {
  return a < b ? a : b;
}

// Hands out consecutive pieces of a task's scratch, each padded to 16 floats. Without memory it
// only counts what would be needed.
struct Arena {
  float* memory;
  int64_t used = 0;

  float* take(int64_t floats) {
    float* piece = memory == nullptr ? nullptr : memory + used;
    used += (floats + 15) / 16 * 16;
    return piece;
  }
};

// Where the rows of head (b, h) of a (B, H, L) array start.
inline int64_t head_start(const AttentionInputs& in, const Group& g) {
  return (static_cast<int64_t>(g.b) * in.H + g.h) * in.L;
}

template <class T>
inline T* row_of(const View& x, const Group& g, int i) {
  return static_cast<T*>(x.data) + g.b * x.b + g.h * x.h + g.positions[i] * x.l;
}

// Rows [begin, begin + count) of the group as float32 at pitch `pitch`, zeros from D to the pitch.
template <class T>
inline void gather(const View& x, const Group& g, int begin, int count, int D, float* out,
                   int pitch) {
  for (int i = 0; i < count; ++i) {
    read_row(row_of<const T>(x, g, begin + i), x.d, D, out + i * pitch);
    for (int d = D; d < pitch; ++d) {
      out[i * pitch + d] = 0;
    }
  }
}

// The transpose, D x width, times `factor`; columns after `count` are zero. `row` holds D floats.
template <class T>
inline void gather_transposed(const View& x, const Group& g, int begin, int count, int D,
                              float factor, int width, float* out, float* row) {
  for (int i = 0; i < count; ++i) {
    read_row(row_of<const T>(x, g, begin + i), x.d, D, row);
    for (int d = 0; d < D; ++d) {
      out[d * width + i] = row[d] * factor;
    }
  }
  for (int i = count; i < width; ++i) {
    for (int d = 0; d < D; ++d) {
      out[d * width + i] = 0;
    }
  }
}

}  // namespace mlx_esm_kernels::cpu::CPU_TARGET
