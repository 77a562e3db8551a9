// Clearing rows in both directions.
#pragma once

#include "mlx/mlx.h"

namespace mlx_esm_kernels {

// x where `real`, 0 elsewhere; and the same of its gradient. MLX's own where multiplies the
// gradient with the condition, and 0 * NaN is NaN.
mlx::core::array keep(const mlx::core::array& real, const mlx::core::array& x, mlx::core::Stream s);

}  // namespace mlx_esm_kernels
