// Where launch plans run: on MLX's Metal device, or on what stands for one in tests.
#pragma once

#include <optional>
#include <vector>

#include "metal/chip.h"
#include "metal/plan.h"
#include "mlx/mlx.h"

namespace mlx_esm_kernels::metal {

namespace mx = mlx::core;

// Whether work on this stream becomes launch plans.
bool runs_on(mx::Stream s);

// The GPU that plans are made for; nothing where there is none.
std::optional<Chip> current_chip();

// Executes a plan of a primitive whose outputs are allocated.
void execute(const Plan& plan, const std::vector<mx::array>& inputs,
             const std::vector<mx::array>& outputs, mx::Stream s);

}  // namespace mlx_esm_kernels::metal
