#include "cpu/amx_permission.h"

#ifdef __linux__
#include <sys/syscall.h>
#include <unistd.h>
#endif

namespace mlx_esm_kernels::cpu {

bool may_use_amx() {
#ifdef __linux__
  // Of arch_prctl, in Linux from 5.16 on.
  constexpr int kRequestPermission = 0x1023;
  constexpr int kTileData = 18;
  return __builtin_cpu_supports("amx-tile") && __builtin_cpu_supports("amx-int8") &&
         __builtin_cpu_supports("amx-bf16") &&
         syscall(SYS_arch_prctl, kRequestPermission, kTileData) == 0;
#else
  return false;
#endif
}

}  // namespace mlx_esm_kernels::cpu
