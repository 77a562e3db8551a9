// One small matrix product for attention and for bfloat16's linear: C = A B or C += A B, computed
// in register tiles with the columns in the lanes. Compiled once per instruction set.
#pragma once

#include "cpu/vector.h"

namespace mlx_esm_kernels::cpu::CPU_TARGET {

// What C holds before the product is added.
enum class Start { zero, accumulate };

// A is m x k (its elements are broadcast, so a transposed one costs nothing: it lies there as
// k x m), B is k x n and C is m x n, contiguous rows at pitches lda, ldb and ldc; n is a multiple
// of kLanes.
struct Product {
  int m, n, k;
  const float* a;
  int64_t lda;
  const float* b;
  int64_t ldb;
  float* c;
  int64_t ldc;
  Start start;
};

enum class Left { straight, transposed };

// What one step of the sum multiplies: a float32 of A and one of B, or two bfloat16 of each, which
// lie where a float32 would: the exact products are added in float32, the second first.
enum class Element { float32, bfloat16_pair };

template <Element kind>
[[gnu::always_inline]] inline vfloat add_product(vfloat sum, float element, vfloat column) {
  if constexpr (kind == Element::float32) {
    return sum + element * column;
  } else {
#if defined(__AVX512BF16__)
    return (vfloat)_mm512_dpbf16_ps((__m512)sum, (__m512bh)_mm512_set1_ps(element),
                                    (__m512bh)column);
#endif
  }
}

// A tile of C lives in accumulators. Each step of the sum loads one row of B in `Vectors` vectors
// and broadcasts the elements of A one by one; what is left of the registers holds these.
#if defined(__AVX512F__) || defined(__aarch64__)
constexpr int kAccumulators = 24;  // of 32 registers
constexpr int kTileVectors = 4;
#else
constexpr int kAccumulators = 12;  // of 16 registers
constexpr int kTileVectors = 3;
#endif

// Rows of a tile: with one vector more rows would only wait for their broadcasts.
template <int Vectors>
constexpr int kTileRows = Vectors == 1 ? 12 : kAccumulators / Vectors;

// Leaves a tile as it is.
struct Unchanged {
  template <int Rows, int Vectors>
  void operator()(vfloat (&)[Rows][Vectors], int, int) const {}
};

// One step of a tile's sum: its columns at b times its elements at a.
template <Left left, Element kind, int Rows, int Vectors>
[[gnu::always_inline]] inline void multiply_step(const Product& p, const float* a, const float* b,
                                                 vfloat (&tile)[Rows][Vectors]) {
  vfloat column[Vectors];
#pragma GCC unroll 4
  for (int v = 0; v < Vectors; ++v) {
    column[v] = load(b + v * kLanes);
  }
#pragma GCC unroll 12
  for (int r = 0; r < Rows; ++r) {
    const float element = a[left == Left::straight ? r * p.lda : r];
#pragma GCC unroll 4
    for (int v = 0; v < Vectors; ++v) {
      tile[r][v] = add_product<kind>(tile[r][v], element, column[v]);
    }
  }
}

// Depth is p.k where it is known to the compiler, else 0.
template <Left left, Element kind, int Rows, int Vectors, int Depth, class Finish>
inline void multiply_tile(const Product& p, int i, int j, const Finish& finish) {
  vfloat tile[Rows][Vectors];
#pragma GCC unroll 12
  for (int r = 0; r < Rows; ++r) {
#pragma GCC unroll 4
    for (int v = 0; v < Vectors; ++v) {
      const float* c = p.c + (i + r) * p.ldc + j + v * kLanes;
      tile[r][v] = p.start == Start::zero ? vfloat{} : load(c);
    }
  }
  const float* a = p.a + (left == Left::straight ? i * p.lda : i);
  const int64_t next = left == Left::straight ? 1 : p.lda;
  const float* b = p.b + j;
  if constexpr (Depth > 0) {
#pragma GCC unroll 16
    for (int k = 0; k < Depth; ++k) {
      multiply_step<left, kind>(p, a + k * next, b + k * p.ldb, tile);
    }
  } else {
    for (int k = 0; k < p.k; ++k, a += next, b += p.ldb) {
      multiply_step<left, kind>(p, a, b, tile);
    }
  }
  finish(tile, i, j);
#pragma GCC unroll 12
  for (int r = 0; r < Rows; ++r) {
#pragma GCC unroll 4
    for (int v = 0; v < Vectors; ++v) {
      store(p.c + (i + r) * p.ldc + j + v * kLanes, tile[r][v]);
    }
  }
}

// The tile of `rows` rows, one of 1 ... Rows.
template <Left left, Element kind, int Rows, int Vectors, class Finish>
inline void multiply_rows(const Product& p, int i, int j, int rows, const Finish& finish) {
  if constexpr (Rows > 1) {
    if (rows < Rows) {
      return multiply_rows<left, kind, Rows - 1, Vectors>(p, i, j, rows, finish);
    }
  }
  // A head dim of 16 has too few steps to pay for a loop. Other tiles are too rare to be compiled.
  if constexpr (left == Left::straight && kLanes > 8 && Vectors > 2 &&
                Rows >= kTileRows<Vectors> - 1) {
    constexpr int kSteps = kind == Element::float32 ? 16 : 8;
    if (p.k == kSteps) {
      return multiply_tile<left, kind, Rows, Vectors, kSteps>(p, i, j, finish);
    }
  }
  multiply_tile<left, kind, Rows, Vectors, 0>(p, i, j, finish);
}

// Tiles of nearly equal heights: a last one of one or two rows would wait for its own sums.
template <Left left, Element kind, int Vectors, class Between, class Finish>
inline void multiply_columns(const Product& p, int j, Between& between, const Finish& finish) {
  const int tiles = (p.m + kTileRows<Vectors> - 1) / kTileRows<Vectors>;
  for (int t = 0, i = 0; t < tiles; ++t) {
    const int rows = p.m / tiles + (t < p.m % tiles ? 1 : 0);
    multiply_rows<left, kind, kTileRows<Vectors>, Vectors>(p, i, j, rows, finish);
    i += rows;
    between();
  }
}

// `between` is called after each tile: a place to ask for memory that is needed later.
// `finish(tile, i, j)` changes what is stored of C from row i, column j on, while it is in
// registers.
template <Left left = Left::straight, Element kind = Element::float32, class Between,
          class Finish = Unchanged>
inline void multiply(const Product& p, Between& between, const Finish& finish = {}) {
  static_assert(kTileVectors <= 4);
  const int vectors = p.n / kLanes;
  const int groups = (vectors + kTileVectors - 1) / kTileVectors;
  for (int g = 0, j = 0; g < groups; ++g) {
    const int width = vectors / groups + (g < vectors % groups ? 1 : 0);
    switch (width) {
      case 4:
        multiply_columns<left, kind, kTileVectors>(p, j, between, finish);
        break;
      case 3:
        multiply_columns<left, kind, 3>(p, j, between, finish);
        break;
      case 2:
        multiply_columns<left, kind, 2>(p, j, between, finish);
        break;
      case 1:
        multiply_columns<left, kind, 1>(p, j, between, finish);
        break;
    }
    j += width * kLanes;
  }
}

inline void multiply(const Product& p) {
  const auto nothing = [] {};
  multiply(p, nothing);
}

}  // namespace mlx_esm_kernels::cpu::CPU_TARGET
