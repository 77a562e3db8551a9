// What AMX's tiles and NEON's instructions for matrices compute alike. Compiled for the instruction
// sets that have them.
#pragma once

#include "cpu/vector.h"

namespace mlx_esm_kernels::cpu::CPU_TARGET {

constexpr int64_t kPackedColumns = 64;
constexpr int64_t kPackedPitch = kPackedColumns * 4;  // bytes, of C

// C = A B or C += A B with sums of 4 bytes. A has `count` rows of `bytes` bytes at `pitch`. B is a
// panel of kPackedColumns columns, of which `columns` are wanted: a few bytes of each of them make
// a step. C lies at kPackedPitch; what lies between `columns` and that is undefined.
struct PackedProduct {
  const void* a;
  int64_t pitch, count, bytes;
  const void* b;
  int64_t columns;
  void* c;
  bool accumulate;
};

inline const uint8_t* bytes_at(const void* p, int64_t offset) {
  return static_cast<const uint8_t*>(p) + offset;
}

}  // namespace mlx_esm_kernels::cpu::CPU_TARGET
