// What a launch plan needs to know of an array.
#pragma once

#include <initializer_list>
#include <string>

#include "mlx/mlx.h"

namespace mlx_esm_kernels::metal {

// The name of a floating dtype in Metal.
std::string element_name(mlx::core::Dtype dtype);

// Whether four neighbours of the last axis may be loaded at once, wherever a row begins.
bool takes_vectors(std::initializer_list<const mlx::core::array*> arrays);

}  // namespace mlx_esm_kernels::metal
