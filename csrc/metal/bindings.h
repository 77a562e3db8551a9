// The arrays that the buffers of a plan stand for.
#pragma once

#include <vector>

#include "metal/plan.h"
#include "mlx/mlx.h"

namespace mlx_esm_kernels::metal {

struct Bindings {
  const std::vector<mlx::core::array>& inputs;
  const std::vector<mlx::core::array>& outputs;
  std::vector<mlx::core::array> temporaries;

  const mlx::core::array& at(const Buffer& buffer) const {
    const auto& arrays = buffer.role == Buffer::Role::input    ? inputs
                         : buffer.role == Buffer::Role::output ? outputs
                                                               : temporaries;
    return arrays.at(buffer.index);
  }
};

}  // namespace mlx_esm_kernels::metal
