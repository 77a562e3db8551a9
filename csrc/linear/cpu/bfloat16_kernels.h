// Products of bfloat16 matrices with sums in float32, compiled for each instruction set that has
// them. See linear.md.
#pragma once

#include "linear/cpu/compute.h"

namespace mlx_esm_kernels::cpu {

constexpr int64_t kBFloat16Panel = 64;  // columns that are packed together

struct BFloat16Product {
  const uint16_t* rows;  // at `pitch`, each `depth` long
  int64_t pitch, count, depth;
  const uint16_t* panel;  // of `columns` columns
  int64_t columns;
  float* c;  // count x columns at pitch kBFloat16Panel; what lies between them is undefined
  bool accumulate;
};

struct BFloat16Kernels {
  int64_t depth;  // sums are of a multiple of so many products: zeros fill up rows and panels

  // Rows [begin, end) of a matrix at their places in `to`: contiguous at `pitch`, zeros up to it.
  void (*line_up)(const Matrix& a, int64_t begin, int64_t end, uint16_t* to, int64_t pitch);

  // Columns [column, column + columns) of a matrix as a panel, `depth` x kBFloat16Panel numbers in
  // the order in which `multiply` reads them; zeros fill it up.
  void (*pack)(const Matrix& b, int64_t column, int64_t columns, int64_t depth, uint16_t* panel);

  // Rows times a panel; a depth within both starts kBFloat16Panel times as far in the panel.
  void (*multiply)(const BFloat16Product&);
};

namespace avx512_bf16 {
extern const BFloat16Kernels bfloat16_kernels;
}
namespace avx512_amx {
extern const BFloat16Kernels bfloat16_kernels;
}
namespace neon_bf16 {
extern const BFloat16Kernels bfloat16_kernels;
}

// Those of the instruction set in use; nullptr where it has none, and float32 serves.
const BFloat16Kernels* bfloat16_kernels_in_use();

}  // namespace mlx_esm_kernels::cpu
