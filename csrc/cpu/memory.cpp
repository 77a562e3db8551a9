#include "cpu/memory.h"

#include <cstdint>

#ifdef __GLIBC__
#include <malloc.h>
#endif
#ifdef __linux__
#include <sys/mman.h>
#endif

namespace mlx_esm_kernels::cpu {

void keep_freed_memory() {
#ifdef __GLIBC__
  mallopt(M_MMAP_MAX, 0);         // mapped blocks go back to the system as soon as they are freed
  mallopt(M_TRIM_THRESHOLD, -1);  // never
  mallopt(M_ARENA_MAX, 1);        // arenas other than the main one cannot hold a block above 64 MiB
#endif
}

void advise_huge_pages(void* data, size_t bytes) {
#ifdef __linux__
  constexpr uintptr_t kHuge = uintptr_t{1} << 21;
  const auto address = reinterpret_cast<uintptr_t>(data);
  const uintptr_t begin = (address + kHuge - 1) / kHuge * kHuge;
  const uintptr_t end = (address + bytes) / kHuge * kHuge;
  if (begin < end) {
    madvise(reinterpret_cast<void*>(begin), end - begin, MADV_HUGEPAGE);
  }
#else
  (void)data;
  (void)bytes;
#endif
}

}  // namespace mlx_esm_kernels::cpu
