// Products by NEON's instructions for matrices: two rows of 8 bytes times two columns, added to
// sums of 4 bytes. Compiled for the instruction set that has them.
#pragma once

#include "cpu/packed_product.h"

namespace mlx_esm_kernels::cpu::CPU_TARGET {

constexpr int64_t kMmlaBytes = 8;                           // of a row or a column, in a step
constexpr int64_t kMmlaStep = kPackedColumns * kMmlaBytes;  // bytes of a panel
constexpr int kMmlaPairs = 4;  // of rows and of columns in a tile: 16 accumulators of 32 registers

typedef uint8_t vbytes __attribute__((vector_size(16)));

// Sums are [row][column], 2 x 2: of four bfloat16 or of eight signed bytes.
#if defined(__ARM_FEATURE_BF16_VECTOR_ARITHMETIC)
inline vfloat add_products(vfloat sums, vbytes rows, vbytes columns) {
  return (vfloat)vbfmmlaq_f32((float32x4_t)sums, vreinterpretq_bf16_u8((uint8x16_t)rows),
                              vreinterpretq_bf16_u8((uint8x16_t)columns));
}
#endif

#if defined(__ARM_FEATURE_MATMUL_INT8)
inline vint add_products(vint sums, vbytes rows, vbytes columns) {
  return (vint)vmmlaq_s32((int32x4_t)sums, (int8x16_t)rows, (int8x16_t)columns);
}
#endif

// The lower and the upper halves of two vectors: of two rows of four columns they make two squares
// of two columns, and of two such squares two rows.
template <class Sums>
inline Sums lower_halves(Sums a, Sums b) {
  return __builtin_shufflevector(a, b, 0, 1, 4, 5);
}

template <class Sums>
inline Sums upper_halves(Sums a, Sums b) {
  return __builtin_shufflevector(a, b, 2, 3, 6, 7);
}

inline vbytes load_step(const uint8_t* row, const uint8_t* next) {
  return (vbytes)vcombine_u8(vld1_u8(row), vld1_u8(next));
}

// Two rows of C, from a column on.
template <class Sums>
struct Rows {
  uint8_t *row, *next;

  void load(Sums (&squares)[kMmlaPairs]) const {
    for (int q = 0; q < kMmlaPairs; q += 2) {
      Sums a, b;
      __builtin_memcpy(&a, row + q * 8, sizeof a);
      __builtin_memcpy(&b, next + q * 8, sizeof b);
      squares[q] = lower_halves(a, b);
      squares[q + 1] = upper_halves(a, b);
    }
  }

  void store(const Sums (&squares)[kMmlaPairs]) const {
    for (int q = 0; q < kMmlaPairs; q += 2) {
      const Sums a = lower_halves(squares[q], squares[q + 1]);
      const Sums b = upper_halves(squares[q], squares[q + 1]);
      __builtin_memcpy(row + q * 8, &a, sizeof a);
      __builtin_memcpy(next + q * 8, &b, sizeof b);
    }
  }
};

// Up to 2 * Pairs rows and 8 columns. A last row without another is paired with itself, and stored
// twice alike.
template <class Sums, int Pairs>
inline void multiply_tile(const PackedProduct& p, int64_t row, int64_t column) {
  const uint8_t *a[Pairs], *next[Pairs];
  Rows<Sums> c[Pairs];
  Sums sums[Pairs][kMmlaPairs] = {};
#pragma GCC unroll 4
  for (int r = 0; r < Pairs; ++r) {
    const int64_t first = row + 2 * r;
    const int64_t second = first + 1 < p.count ? first + 1 : first;
    a[r] = bytes_at(p.a, first * p.pitch);
    next[r] = bytes_at(p.a, second * p.pitch);
    uint8_t* to = static_cast<uint8_t*>(p.c) + column * 4;
    c[r] = {to + first * kPackedPitch, to + second * kPackedPitch};
    if (p.accumulate) {
      c[r].load(sums[r]);
    }
  }
  const uint8_t* b = bytes_at(p.b, column * kMmlaBytes);
  for (int64_t k = 0; k < p.bytes; k += kMmlaBytes, b += kMmlaStep) {
    vbytes columns[kMmlaPairs];
#pragma GCC unroll 4
    for (int q = 0; q < kMmlaPairs; ++q) {
      columns[q] = (vbytes)vld1q_u8(b + q * 2 * kMmlaBytes);
    }
#pragma GCC unroll 4
    for (int r = 0; r < Pairs; ++r) {
      const vbytes rows = load_step(a[r] + k, next[r] + k);
#pragma GCC unroll 4
      for (int q = 0; q < kMmlaPairs; ++q) {
        sums[r][q] = add_products(sums[r][q], rows, columns[q]);
      }
    }
  }
#pragma GCC unroll 4
  for (int r = 0; r < Pairs; ++r) {
    c[r].store(sums[r]);
  }
}

// The tile of `pairs` pairs of rows, one of 1 ... Pairs.
template <class Sums, int Pairs>
inline void multiply_pairs(const PackedProduct& p, int64_t row, int64_t pairs) {
  if constexpr (Pairs > 1) {
    if (pairs < Pairs) {
      return multiply_pairs<Sums, Pairs - 1>(p, row, pairs);
    }
  }
  for (int64_t column = 0; column < p.columns; column += 2 * kMmlaPairs) {
    multiply_tile<Sums, Pairs>(p, row, column);
  }
}

// Sums is vfloat for bfloat16 and vint for signed bytes.
template <class Sums>
inline void multiply_with_mmla(const PackedProduct& p) {
  for (int64_t row = 0; row < p.count; row += 2 * kMmlaPairs) {
    multiply_pairs<Sums, kMmlaPairs>(p, row, (p.count - row + 1) / 2);
  }
}

}  // namespace mlx_esm_kernels::cpu::CPU_TARGET
