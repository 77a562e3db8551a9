#include "cpu/target.h"

#include <cstdlib>
#include <stdexcept>
#include <string>

namespace mlx_esm_kernels::cpu {

namespace {

bool runs_avx2() {
#ifdef MLX_ESM_KERNELS_HAS_AVX2
  return __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma");
#else
  return false;
#endif
}

Target choose() {
  const char* wanted = std::getenv("MLX_ESM_KERNELS_CPU_TARGET");
  if (wanted == nullptr || *wanted == '\0') {
    return runs_avx2() ? Target::avx2 : Target::baseline;
  }
  const std::string name = wanted;
  if (name == "baseline") {
    return Target::baseline;
  }
  if (name == "avx2" && runs_avx2()) {
    return Target::avx2;
  }
  throw std::invalid_argument("[cpu] MLX_ESM_KERNELS_CPU_TARGET must be baseline" +
                              std::string(runs_avx2() ? " or avx2" : "") +
                              " on this machine; got " + name + ".");
}

}  // namespace

Target target() {
  static const Target chosen = choose();
  return chosen;
}

const char* target_name(Target target) {
  return target == Target::avx2 ? "avx2" : "baseline";
}

}  // namespace mlx_esm_kernels::cpu
