// How much work one launch may have. macOS ends a command buffer that keeps the screen waiting, in
// bad cases after a quarter of a second, and work can make way between launches at the least.
#pragma once

#include <cstdint>
#include <optional>

namespace mlx_esm_kernels::metal {

// In products of 8 x 8 x 8 fragments. The default is 0.09 s on the slowest chip, an M1 of 2.6
// TFLOP/s, at 30 % of its peak.
int64_t launch_products();

// Another budget, at least 1; nothing: the default again.
void set_launch_products(std::optional<int64_t> products);

}  // namespace mlx_esm_kernels::metal
