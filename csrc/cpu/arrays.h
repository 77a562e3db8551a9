// From MLX arrays to the plain memory that the CPU code works on.
#pragma once

#include <stdexcept>
#include <vector>

#include "cpu/memory.h"
#include "cpu/strided_rows.h"
#include "cpu/target.h"
#include "mlx/mlx.h"

namespace mlx_esm_kernels::cpu {

inline Dtype to_dtype(mlx::core::Dtype dtype) {
  if (dtype == mlx::core::float32) {
    return Dtype::float32;
  }
  if (dtype == mlx::core::float16) {
    return Dtype::float16;
  }
  if (dtype == mlx::core::bfloat16) {
    return Dtype::bfloat16;
  }
  throw std::invalid_argument("[cpu] a floating point array was expected.");
}

// New arrays that nothing was written to yet.
inline void advise_huge_pages(const std::vector<mlx::core::array>& arrays) {
  for (const mlx::core::array& x : arrays) {
    advise_huge_pages(const_cast<char*>(x.data<char>()), x.nbytes());
  }
}

inline void allocate(mlx::core::array& out) {
  out.set_data(mlx::core::allocator::malloc(out.nbytes()));
  advise_huge_pages(out.data<char>(), out.nbytes());
}

inline void allocate(std::vector<mlx::core::array>& outputs) {
  for (mlx::core::array& out : outputs) {
    allocate(out);
  }
}

// Where x (B, H, L, D) lies row by row, so do the outputs: rows that lie end to end are written
// faster. Elsewhere heads come last, as in a model, which then needs no copy.
template <class Primitive>
void allocate_as(const mlx::core::array& x, const Primitive& primitive,
                 std::vector<mlx::core::array>& outputs) {
  if (x.flags().row_contiguous) {
    allocate(outputs);
  } else {
    primitive.allocate(outputs);
    advise_huge_pages(outputs);
  }
}

inline void* bytes(const mlx::core::array& x) {
  return const_cast<void*>(static_cast<const void*>(x.data<char>()));
}

// Of an array of two axes.
inline StridedRows strided_rows(const mlx::core::array& x) {
  return {bytes(x), x.strides()[0], x.strides()[1]};
}

}  // namespace mlx_esm_kernels::cpu
