// Emulated tiles need no one's leave.
#include "cpu/amx_permission.h"

bool mlx_esm_kernels::cpu::may_use_amx() {
  return true;
}
