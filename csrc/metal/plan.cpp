#include "metal/plan.h"

#include <algorithm>
#include <cstdio>

namespace mlx_esm_kernels::metal {

namespace {

// Letters and digits alone: Metal wants an identifier. A float shows its bits, so that no two are
// alike.
std::string value_name(const FunctionConstant& constant) {
  if (const auto* flag = std::get_if<bool>(&constant.value)) {
    return *flag ? "true" : "false";
  }
  if (const auto* number = std::get_if<int32_t>(&constant.value)) {
    return *number < 0 ? "m" + std::to_string(-int64_t{*number}) : std::to_string(*number);
  }
  uint32_t bits;
  std::memcpy(&bits, &std::get<float>(constant.value), sizeof(bits));
  char hex[16];
  std::snprintf(hex, sizeof(hex), "f%08x", static_cast<unsigned>(bits));
  return hex;
}

}  // namespace

std::string specialized_name(const Launch& launch) {
  if (launch.function_constants.empty()) {
    return launch.kernel;
  }
  std::string name = launch.source->library + "_" + launch.kernel;
  for (const FunctionConstant& constant : launch.function_constants) {
    name += "_" + std::to_string(constant.index) + "_" + value_name(constant);
  }
  return name;
}

std::vector<GridPart> parts_of(const std::array<int64_t, 3>& grid, int64_t most) {
  const auto steps = [&](int64_t of_one) { return std::max<int64_t>(1, most / of_one); };
  const std::array<int64_t, 3> step = {std::min(grid[0], std::max<int64_t>(1, most)),
                                       std::min(grid[1], steps(grid[0])),
                                       std::min(grid[2], steps(grid[0] * grid[1]))};
  std::vector<GridPart> parts;
  for (int64_t z = 0; z < grid[2]; z += step[2]) {
    for (int64_t y = 0; y < grid[1]; y += step[1]) {
      for (int64_t x = 0; x < grid[0]; x += step[0]) {
        parts.push_back({{x, y, z},
                         {std::min(step[0], grid[0] - x), std::min(step[1], grid[1] - y),
                          std::min(step[2], grid[2] - z)}});
      }
    }
  }
  return parts;
}

}  // namespace mlx_esm_kernels::metal
