#include "metal/plan.h"

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
  std::string name = launch.library + "_" + launch.kernel;
  for (const FunctionConstant& constant : launch.function_constants) {
    name += "_" + std::to_string(constant.index) + "_" + value_name(constant);
  }
  return name;
}

}  // namespace mlx_esm_kernels::metal
