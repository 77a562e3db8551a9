// Which GPU kernels are chosen for.
#pragma once

#include <string>

namespace mlx_esm_kernels::metal {

struct Chip {
  std::string name;          // "Apple M1"
  std::string architecture;  // "applegpu_g13g"
  int generation;            // 13 is M1, 14 is M2, and so on
};

}  // namespace mlx_esm_kernels::metal
