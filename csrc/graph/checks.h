// How every op words what is wrong with its input.
#pragma once

#include <string>

#include "mlx/mlx.h"

namespace mlx_esm_kernels {

namespace mx = mlx::core;

// "(2, 64)"
std::string text(const mx::Shape& shape);

// "float32"
std::string text(mx::Dtype dtype);

// Throws std::invalid_argument("[op] sentence"), which Python sees as a ValueError.
[[noreturn]] void fail(const char* op, const std::string& sentence);

// float32, float16 or bfloat16.
void expect_floating(const char* op, const char* name, const mx::array& x);

// Any integer or bool.
void expect_integer(const char* op, const char* name, const mx::array& x);

// `meaning` names the axes, as in "(B, L)".
void expect_shape(const char* op, const char* name, const mx::array& x, const mx::Shape& shape,
                  const char* meaning);

}  // namespace mlx_esm_kernels
