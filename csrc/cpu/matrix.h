// One small matrix product for all of attention's products: C = A B or C += A B, computed
// in register tiles with the columns in the lanes. Compiled once per instruction set.
#pragma once

#include "cpu/vector.h"

namespace mlx_esm_kernels::cpu::CPU_TARGET {

// What C holds before the product is added.
enum class Start { zero, accumulate };

// A is m x k with any strides (its elements are broadcast, so a transposed A costs nothing);
// B is k x n and C is m x n, contiguous rows at pitches ldb and ldc; n is a multiple of kLanes.
struct Product {
  int m, n, k;
  const float* a;
  int64_t a_row, a_col;
  const float* b;
  int64_t ldb;
  float* c;
  int64_t ldc;
  Start start;
};

#if defined(__AVX512F__) || defined(__aarch64__)
// 6 x 4 accumulators, 4 vectors of B and one broadcast, of 32 registers.
constexpr int kTileRows = 6;
constexpr int kTileVectors = 4;
#else
// 4 x 3 accumulators, 3 vectors of B and one broadcast fill the 16 registers of AVX2.
constexpr int kTileRows = 4;
constexpr int kTileVectors = 3;
#endif

template <int Rows, int Vectors>
inline void multiply_tile(const Product& p, int i, int j) {
  vfloat acc[Rows][Vectors];
#pragma GCC unroll 8
  for (int r = 0; r < Rows; ++r) {
#pragma GCC unroll 8
    for (int v = 0; v < Vectors; ++v) {
      const float* c = p.c + (i + r) * p.ldc + j + v * kLanes;
      acc[r][v] = p.start == Start::zero ? vfloat{} : load(c);
    }
  }
  const float* a = p.a + i * p.a_row;
  const float* b = p.b + j;
  for (int k = 0; k < p.k; ++k, a += p.a_col, b += p.ldb) {
    vfloat column[Vectors];
#pragma GCC unroll 8
    for (int v = 0; v < Vectors; ++v) {
      column[v] = load(b + v * kLanes);
    }
#pragma GCC unroll 8
    for (int r = 0; r < Rows; ++r) {
      const float element = a[r * p.a_row];
#pragma GCC unroll 8
      for (int v = 0; v < Vectors; ++v) {
        acc[r][v] += element * column[v];
      }
    }
  }
#pragma GCC unroll 8
  for (int r = 0; r < Rows; ++r) {
#pragma GCC unroll 8
    for (int v = 0; v < Vectors; ++v) {
      store(p.c + (i + r) * p.ldc + j + v * kLanes, acc[r][v]);
    }
  }
}

template <int Vectors>
inline void multiply_columns(const Product& p, int j) {
  int i = 0;
  for (; i + kTileRows <= p.m; i += kTileRows) {
    multiply_tile<kTileRows, Vectors>(p, i, j);
  }
  switch (p.m - i) {
    case 5:
      return multiply_tile<5, Vectors>(p, i, j);
    case 4:
      return multiply_tile<4, Vectors>(p, i, j);
    case 3:
      return multiply_tile<3, Vectors>(p, i, j);
    case 2:
      return multiply_tile<2, Vectors>(p, i, j);
    case 1:
      return multiply_tile<1, Vectors>(p, i, j);
  }
}

inline void multiply(const Product& p) {
  int j = 0;
  for (; j + kTileVectors * kLanes <= p.n; j += kTileVectors * kLanes) {
    multiply_columns<kTileVectors>(p, j);
  }
  switch ((p.n - j) / kLanes) {
    case 3:
      return multiply_columns<3>(p, j);
    case 2:
      return multiply_columns<2>(p, j);
    case 1:
      return multiply_columns<1>(p, j);
  }
}

}  // namespace mlx_esm_kernels::cpu::CPU_TARGET
