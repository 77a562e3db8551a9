// The one place that speaks to Metal, through MLX: plans become commands of a stream.
#pragma once

#include "metal/bindings.h"
#include "metal/chip.h"
#include "metal/plan.h"
#include "mlx/mlx.h"

namespace mlx_esm_kernels::metal {

// The GPU of this Mac, as MLX describes it.
Chip chip();

// Appends the plan's launches to the stream's commands. MLX sees which arrays each one reads and
// writes, and orders them. Throws std::runtime_error with Metal's own words where a source does not
// compile, and where a kernel takes fewer threads than its launch has.
void encode(const Plan& plan, const Bindings& bindings, mlx::core::Stream s);

}  // namespace mlx_esm_kernels::metal
