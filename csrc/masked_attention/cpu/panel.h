// Panels of queries and their transposes. Compiled once per instruction set.
//
// Queries lie in the lanes: scores are kept transposed, S^T = K Q^T (keys x queries), so that
// maximum, sum and rescaling are vertical operations and no vector is ever reduced.
#pragma once

#include "cpu/transpose.h"
#include "masked_attention/cpu/rows.h"

namespace mlx_esm_kernels::cpu::CPU_TARGET {

constexpr int kWidth = kTileVectors * kLanes;  // queries of a panel, which are worked on together

// The piece of [begin, end) that is number `part` of `parts`.
struct Range {
  int begin, end;
};

inline Range piece(int begin, int end, int part, int parts) {
  const int64_t count = end - begin;
  return {begin + static_cast<int>(count * part / parts),
          begin + static_cast<int>(count * (part + 1) / parts)};
}

// Whole vectors of lanes, dealt to panels as evenly as they go.
inline int panels_of(int queries) {
  return (queries + kWidth - 1) / kWidth;
}

inline Range panel(int begin, int end, int number, int panels) {
  const Range vectors = piece(0, (end - begin + kLanes - 1) / kLanes, number, panels);
  return {begin + vectors.begin * kLanes, smaller(begin + vectors.end * kLanes, end)};
}

// kLanes rows of kLanes columns as columns; each row first passes through `each`.
template <class Each>
inline void transpose_block(const float* rows, int64_t pitch, const Each& each, float* out,
                            int64_t out_pitch) {
  vfloat block[kLanes];
#pragma GCC unroll 16
  for (int r = 0; r < kLanes; ++r) {
    block[r] = each(load(rows + r * pitch));
  }
  transpose(block);
#pragma GCC unroll 16
  for (int c = 0; c < kLanes; ++c) {
    store(out + c * out_pitch, block[c]);
  }
}

// The transpose of `count` rows, D x width; each row first passes through `each`. Columns after
// `count` are zero.
template <class Each>
inline void transpose_from(const Rows& rows, int count, int D, const Each& each, int width,
                           float* out) {
  for (int i = 0; i < width; i += kLanes) {
    for (int d = 0; d < D; d += kLanes) {
      const int lanes = smaller(kLanes, D - d);
      if (i + kLanes <= count && lanes == kLanes) {
        transpose_block(rows.row(i) + d, rows.pitch, each, out + d * width + i, width);
        continue;
      }
      vfloat block[kLanes];
      for (int r = 0; r < kLanes; ++r) {
        block[r] = i + r < count ? each(load_partial(rows.row(i + r) + d, lanes)) : vfloat{};
      }
      transpose(block);
      for (int c = 0; c < lanes; ++c) {
        store(out + (d + c) * width + i, block[c]);
      }
    }
  }
}

// What a product of `kind` means, a score to base 2 or scale dP: pairs are multiplied as they are,
// the transposed float32 factors already bear the factor.
template <Element kind>
[[gnu::always_inline]] inline vfloat scaled(vfloat product, float factor) {
  return kind == Element::float32 ? product : product * factor;
}

// The transpose of factors of scores, float32 ones times `factor`.
template <Element kind>
inline void transpose_factors(const Rows& rows, int count, int D, float factor, int width,
                              float* out) {
  if constexpr (kind == Element::float32) {
    transpose_from(rows, count, D, [=](vfloat v) { return v * factor; }, width, out);
  } else {
    transpose_from(rows, count, elements<kind>(D), [](vfloat v) { return v; }, width, out);
  }
}

// Columns [column, column + kLanes) of a D x width matrix, each times its lane of `factor`, as
// rows at `pitch`, which is D in whole vectors.
inline void transpose_to(const float* columns, int width, int column, int D, vfloat factor,
                         float* rows, int64_t pitch) {
  for (int d = 0; d < D; d += kLanes) {
    const float* first = columns + d * width + column;
    if (d + kLanes <= D) {
      transpose_block(first, width, [=](vfloat v) { return v * factor; }, rows + d, pitch);
      continue;
    }
    vfloat block[kLanes];
    for (int c = 0; c < kLanes; ++c) {
      block[c] = d + c < D ? load(first + c * width) * factor : vfloat{};
    }
    transpose(block);
    for (int r = 0; r < kLanes; ++r) {
      store(rows + r * pitch + d, block[r]);
    }
  }
}

}  // namespace mlx_esm_kernels::cpu::CPU_TARGET
