// How bfloat16 matrices are read, and their rows lined up, whatever the order within a panel.
// Compiled once per instruction set that multiplies bfloat16.
#pragma once

#include "cpu/transpose.h"
#include "linear/cpu/bfloat16_kernels.h"

namespace mlx_esm_kernels::cpu::CPU_TARGET {

inline int at_most(int64_t n, int limit) {
  return static_cast<int>(n < limit ? n : limit);
}

inline vuint load_some_bits(const uint16_t* p, int count) {
  if (count == kLanes) {
    return __builtin_convertvector(load_bits(p), vuint);
  }
  uint16_t buffer[kLanes] = {};
  __builtin_memcpy(buffer, p, count * sizeof *p);
  return __builtin_convertvector(load_bits(buffer), vuint);
}

// The pairs of `count` numbers at `first` and those at `second`, which may be none.
inline vfloat pairs(const uint16_t* first, const uint16_t* second, int count) {
  vuint both = load_some_bits(first, count);
  if (second != nullptr) {
    both |= load_some_bits(second, count) << 16;
  }
  return (vfloat)both;
}

// Pairs that lie side by side: `count` numbers, the last of which may have no other.
inline vfloat adjacent_pairs(const uint16_t* p, int count) {
  uint16_t buffer[2 * kLanes] = {};
  __builtin_memcpy(buffer, p, count * sizeof *p);
  vfloat v;
  __builtin_memcpy(&v, buffer, sizeof v);
  return v;
}

// Where a matrix has its number at [row, column].
inline const uint16_t* at(const Matrix& a, int64_t row, int64_t column) {
  return static_cast<const uint16_t*>(a.data) + row * a.row_stride + column * a.column_stride;
}

inline void line_up_rows(const Matrix& a, int64_t begin, int64_t end, uint16_t* to, int64_t pitch) {
  for (int64_t i = begin; i < end; ++i) {
    uint16_t* row = to + i * pitch;
    if (a.column_stride == 1) {
      __builtin_memcpy(row, at(a, i, 0), a.columns * sizeof *row);
    } else {
      for (int64_t k = 0; k < a.columns; ++k) {
        row[k] = *at(a, i, k);
      }
    }
    __builtin_memset(row + a.columns, 0, (pitch - a.columns) * sizeof *row);
  }
}

// Of a matrix whose columns are contiguous, kLanes rows and as many pairs of columns at a time.
inline void line_up_columns(const Matrix& a, int64_t begin, int64_t end, uint16_t* to,
                            int64_t pitch) {
  for (int64_t i = begin; i < end; i += kLanes) {
    const int rows = at_most(end - i, kLanes);
    for (int64_t k = 0; k < pitch; k += 2 * kLanes) {
      vfloat block[kLanes];
      for (int lane = 0; lane < kLanes; ++lane) {
        const int64_t column = k + 2 * lane;
        block[lane] = column >= a.columns
                          ? vfloat{}
                          : pairs(at(a, i, column),
                                  column + 1 < a.columns ? at(a, i, column + 1) : nullptr, rows);
      }
      transpose(block);
      const int64_t bytes = at_most(pitch - k, 2 * kLanes) * sizeof(uint16_t);
      for (int r = 0; r < rows; ++r) {
        __builtin_memcpy(to + (i + r) * pitch + k, &block[r], bytes);
      }
    }
  }
}

inline void line_up(const Matrix& a, int64_t begin, int64_t end, uint16_t* to, int64_t pitch) {
  const bool columns = a.row_stride == 1 && a.column_stride != 1;
  (columns ? line_up_columns : line_up_rows)(a, begin, end, to, pitch);
}

// Of any matrix, number by number: a panel of [depth / Together][kBFloat16Panel][Together].
template <int64_t Together>
inline void pack_numbers(const Matrix& b, int64_t column, int64_t columns, int64_t depth,
                         uint16_t* panel) {
  for (int64_t k = 0; k < depth; ++k) {
    for (int64_t j = 0; j < kBFloat16Panel; ++j) {
      panel[(k / Together * kBFloat16Panel + j) * Together + k % Together] =
          k < b.rows && j < columns ? *at(b, k, column + j) : uint16_t{0};
    }
  }
}

}  // namespace mlx_esm_kernels::cpu::CPU_TARGET
