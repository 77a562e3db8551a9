// From MLX arrays to the plain memory that the CPU code works on.
#pragma once

#include <cstdint>
#include <stdexcept>

#ifdef __linux__
#include <sys/mman.h>
#endif

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

// Asks the system for large pages under an array that nothing was written to yet: each page costs a
// fault, and rows of one head lie about a page apart. A wish, which may be refused.
inline void prefer_large_pages([[maybe_unused]] const mlx::core::array& x) {
#ifdef __linux__
  constexpr uintptr_t kPage = 4096, kLarge = uintptr_t{1} << 21;
  if (x.nbytes() < 2 * kLarge) {
    return;
  }
  const auto begin = reinterpret_cast<uintptr_t>(x.data<char>());
  const uintptr_t first = (begin + kPage - 1) / kPage * kPage;
  const uintptr_t end = (begin + x.nbytes()) / kPage * kPage;
  madvise(reinterpret_cast<void*>(first), end - first, MADV_HUGEPAGE);
#endif
}

inline void allocate(mlx::core::array& out) {
  out.set_data(mlx::core::allocator::malloc(out.nbytes()));
  prefer_large_pages(out);
}

inline void* bytes(const mlx::core::array& x) {
  return const_cast<void*>(static_cast<const void*>(x.data<char>()));
}

}  // namespace mlx_esm_kernels::cpu
