// The parts of int8_linear that are compiled once per instruction set, and for those that have
// nothing else to gain.
#pragma once

#include "int8_linear/cpu/compute.h"

namespace mlx_esm_kernels::cpu {

constexpr int64_t kInt8Panel = 64;  // columns of the result, rows of the weight, packed together

// Rows of x as bytes q + 128, or q where both sides are signed, padded to whole depths, and what a
// unit of q is worth in each.
struct QuantisedRows {
  uint8_t* bytes;
  int64_t pitch;
  float* scales;
};

// A panel of the weight, [steps][kInt8Panel][bytes of a step], and for each of its columns what the
// + 128 of x, where there is one, adds to its sums: 128 times the sum of its weights.
struct Int8PackedPanel {
  int8_t* bytes;
  int32_t* surplus;
};

struct Int8LinearKernels {
  int64_t depth;  // sums are of a multiple of so many products: zeros fill up rows and panels

  // Rows [begin, end) of x; `row` holds x.columns floats.
  void (*quantise)(const Matrix& x, Dtype, int64_t begin, int64_t end, const QuantisedRows& to,
                   float* row);

  // `columns` rows of the weight, K bytes each, as a panel of `depth`; zeros fill it up.
  void (*pack)(const int8_t* weight, int64_t columns, int64_t K, int64_t depth,
               const Int8PackedPanel& to);

  // Rows times a panel of `columns` columns, in units of x and weight, float32 at pitch kInt8Panel;
  // what lies between `columns` and that pitch is undefined.
  void (*multiply)(const QuantisedRows& x, int64_t rows, const Int8PackedPanel& panel,
                   const float* scales, int64_t columns, float* to);
};

MLX_ESM_KERNELS_DECLARE(Int8LinearKernels, int8_linear_kernels)

namespace avx512_vnni {
extern const Int8LinearKernels int8_linear_kernels;
}
namespace avx512_amx {
extern const Int8LinearKernels int8_linear_kernels;
}
namespace neon_dotprod {
extern const Int8LinearKernels int8_linear_kernels;
}
namespace neon_bf16 {
extern const Int8LinearKernels int8_linear_kernels;
}

}  // namespace mlx_esm_kernels::cpu
