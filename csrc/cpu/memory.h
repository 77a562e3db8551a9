// What this process asks of its allocator. Free of MLX.
#pragma once

#include <cstddef>

namespace mlx_esm_kernels::cpu {

// Has malloc keep what is freed for the next call, rather than give it back to the system: fresh
// memory costs a page fault per 4 KiB. For the whole process, for good; only glibc knows of it.
void keep_freed_memory();

// Has the system back a large block with pages of 2 MiB where it can, a fault and an entry of the
// address cache for each 512 small ones. Linux alone.
void advise_huge_pages(void* data, size_t bytes);

}  // namespace mlx_esm_kernels::cpu
