#include "cpu/target.h"

#include <cstdlib>
#include <stdexcept>
#include <string>
#include <vector>

#ifdef MLX_ESM_KERNELS_X86
#include "cpu/amx_permission.h"
#endif
#ifdef MLX_ESM_KERNELS_ARM64_LINUX
#include <asm/hwcap.h>
#include <sys/auxv.h>
#endif

namespace mlx_esm_kernels::cpu {

namespace {

// Those that this machine executes, the best last.
std::vector<Target> executable() {
  std::vector<Target> targets = {Target::baseline};
#ifdef MLX_ESM_KERNELS_X86
  if (__builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma")) {
    targets.push_back(Target::avx2);
    // What the compiler may use of it: see CMakeLists.txt.
    if (__builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
        __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512vl")) {
      targets.push_back(Target::avx512);
      if (__builtin_cpu_supports("avx512vnni")) {
        targets.push_back(Target::avx512_vnni);
        if (__builtin_cpu_supports("avx512bf16")) {
          targets.push_back(Target::avx512_bf16);
        }
        if (may_use_amx()) {
          targets.push_back(Target::avx512_amx);
        }
      }
    }
  }
#endif
#ifdef MLX_ESM_KERNELS_ARM64_LINUX
  // What the compiler may use of it: see CMakeLists.txt.
  if ((getauxval(AT_HWCAP) & HWCAP_ASIMDDP) != 0) {
    targets.push_back(Target::neon_dotprod);
    constexpr unsigned long kMatrices = HWCAP2_BF16 | HWCAP2_I8MM;
    if ((getauxval(AT_HWCAP2) & kMatrices) == kMatrices) {
      targets.push_back(Target::neon_bf16);
    }
  }
#endif
  return targets;
}

bool is_intel() {
#ifdef MLX_ESM_KERNELS_X86
  return __builtin_cpu_is("intel");
#else
  return false;
#endif
}

Target choose() {
  const std::vector<Target> targets = executable();
  const char* wanted = std::getenv("MLX_ESM_KERNELS_CPU_TARGET");
  if (wanted == nullptr || *wanted == '\0') {
    // Intel's vdpbf16ps takes four times as long as an FMA, for twice the products.
    return targets.back() == Target::avx512_bf16 && is_intel() ? Target::avx512_vnni
                                                               : targets.back();
  }
  std::string names;
  for (const Target target : targets) {
    if (wanted == std::string(target_name(target))) {
      return target;
    }
    names += (names.empty() ? "" : " or ") + std::string(target_name(target));
  }
  throw std::invalid_argument("[cpu] MLX_ESM_KERNELS_CPU_TARGET must be " + names +
                              " on this machine; got " + wanted + ".");
}

}  // namespace

Target target() {
  static const Target chosen = choose();
  return chosen;
}

const char* target_name(Target target) {
  switch (target) {
    case Target::baseline:
      return "baseline";
    case Target::avx2:
      return "avx2";
    case Target::avx512:
      return "avx512";
    case Target::avx512_vnni:
      return "avx512_vnni";
    case Target::avx512_bf16:
      return "avx512_bf16";
    case Target::avx512_amx:
      return "avx512_amx";
    case Target::neon_dotprod:
      return "neon_dotprod";
    case Target::neon_bf16:
      return "neon_bf16";
  }
  return "";
}

}  // namespace mlx_esm_kernels::cpu
