// Squares of kLanes x kLanes floats, transposed in registers. Compiled once per instruction set.
#pragma once

#include "cpu/vector.h"

namespace mlx_esm_kernels::cpu::CPU_TARGET {

// The lower and the upper halves of two vectors, lane by lane.
#if defined(__AVX512F__)
inline vfloat interleave_low(vfloat a, vfloat b) {
  return __builtin_shufflevector(a, b, 0, 16, 1, 17, 2, 18, 3, 19, 4, 20, 5, 21, 6, 22, 7, 23);
}
inline vfloat interleave_high(vfloat a, vfloat b) {
  return __builtin_shufflevector(a, b, 8, 24, 9, 25, 10, 26, 11, 27, 12, 28, 13, 29, 14, 30, 15,
                                 31);
}
#elif defined(__AVX2__)
inline vfloat interleave_low(vfloat a, vfloat b) {
  return __builtin_shufflevector(a, b, 0, 8, 1, 9, 2, 10, 3, 11);
}
inline vfloat interleave_high(vfloat a, vfloat b) {
  return __builtin_shufflevector(a, b, 4, 12, 5, 13, 6, 14, 7, 15);
}
#else
inline vfloat interleave_low(vfloat a, vfloat b) {
  return __builtin_shufflevector(a, b, 0, 4, 1, 5);
}
inline vfloat interleave_high(vfloat a, vfloat b) {
  return __builtin_shufflevector(a, b, 2, 6, 3, 7);
}
#endif

// Transposes kLanes rows in place. A round moves the top bit of the row number below the bits of
// the column number; after as many rounds as it has bits, rows are columns.
inline void transpose(vfloat* rows) {
#pragma GCC unroll 4
  for (int round = 1; round < kLanes; round *= 2) {
    vfloat next[kLanes];
#pragma GCC unroll 8
    for (int i = 0; i < kLanes / 2; ++i) {
      next[2 * i] = interleave_low(rows[i], rows[i + kLanes / 2]);
      next[2 * i + 1] = interleave_high(rows[i], rows[i + kLanes / 2]);
    }
#pragma GCC unroll 16
    for (int i = 0; i < kLanes; ++i) {
      rows[i] = next[i];
    }
  }
}

}  // namespace mlx_esm_kernels::cpu::CPU_TARGET
