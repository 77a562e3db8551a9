// Whether this process may use the tiles of AMX. x86-64 alone.
#pragma once

namespace mlx_esm_kernels::cpu {

// Asks the system for the tiles where the processor has those of bfloat16 and int8: they are state
// of a thread that it saves for those alone who asked.
bool may_use_amx();

}  // namespace mlx_esm_kernels::cpu
