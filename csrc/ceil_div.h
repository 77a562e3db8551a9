#pragma once

#include <cstdint>

namespace mlx_esm_kernels {

// n / size, rounded up: how many pieces of `size` cover n, the last of which may be smaller.
constexpr int64_t ceil_div(int64_t n, int64_t size) {
  return (n + size - 1) / size;
}

}  // namespace mlx_esm_kernels
