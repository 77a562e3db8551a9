// Launch plans of rotary. Buffers are numbered as the primitive's inputs and outputs are
// (rotary.h).
#pragma once

#include "metal/plan.h"
#include "rotary/rotary.h"

namespace mlx_esm_kernels {

// Whether the kernel counts the pairs of a row of the batch in 31 bits.
bool rotary_served(const mx::array& x);

metal::Plan rotary_plan(const Arrays& inputs, const Arrays& outputs, const RotaryOptions& options);

// The texts of all kernels for a dtype.
std::vector<std::string> rotary_sources(mx::Dtype dtype);

}  // namespace mlx_esm_kernels
