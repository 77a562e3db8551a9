// What a translated kernel and the emulator's runtime know of each other. Read both by the kernels'
// compiler (C++ for OpenCL) and by the runtime's (C++20).
#pragma once

#ifdef __OPENCL_CPP_VERSION__
typedef unsigned int emu_u32;
typedef unsigned long emu_u64;
#define EMU_EXTERN extern "C"
#define EMU_TEXT __constant const char*
#define EMU_CONSTANT __constant void*
#else
#include <stdint.h>
typedef uint32_t emu_u32;
typedef uint64_t emu_u64;
#define EMU_EXTERN extern "C"
#define EMU_TEXT const char*
#define EMU_CONSTANT void*
#endif

// ---- Called by kernels, defined by the runtime. Each returns or acts for the running GPU thread.

// Builtins of a thread; `axis` 0..2 for those that are vectors.
enum emu_builtin_id {
  emu_thread_position_in_grid,
  emu_thread_position_in_threadgroup,
  emu_threadgroup_position_in_grid,
  emu_threads_per_threadgroup,
  emu_threadgroups_per_grid,
  emu_threads_per_grid,
  emu_thread_index_in_threadgroup,
  emu_thread_index_in_simdgroup,
  emu_simdgroup_index_in_threadgroup,
  emu_simdgroups_per_threadgroup,
  emu_threads_per_simdgroup
};
EMU_EXTERN emu_u32 emu_builtin(emu_u32 id, emu_u32 axis);

// What is bound to [[buffer(slot)]], as the address that the kernel sees. Reports an unbound slot.
EMU_EXTERN void* emu_argument(emu_u32 slot);
EMU_EXTERN EMU_CONSTANT emu_constant_argument(emu_u32 slot);

// A threadgroup array that the kernel declares, at an offset that the translator gave it.
EMU_EXTERN void* emu_threadgroup_array(emu_u32 offset);

// threadgroup_barrier and simdgroup_barrier; `flags` as mem_flags: 1 device, 2 threadgroup.
enum emu_scope { emu_scope_simdgroup, emu_scope_threadgroup };
EMU_EXTERN void emu_barrier(emu_u32 scope, emu_u32 flags, emu_u32 line);

// Every lane of the simdgroup that runs gives `bytes` bytes; all get the 32 values in `all`, and
// the mask of lanes that took part. Lanes that meet in different operations or lines are a fault.
EMU_EXTERN emu_u32 emu_gather(const void* mine, emu_u32 bytes, void* all, EMU_TEXT operation,
                              emu_u32 line);

// d = a b + c of 8 x 8 fragments, two elements a lane in Apple's layout. All 32 lanes must come.
EMU_EXTERN void emu_multiply_accumulate(float* d, const float* a, const float* b, const float* c,
                                        emu_u32 line);

// A fault that only the kernel's side can see (an uninitialised fragment, say).
EMU_EXTERN void emu_fault(EMU_TEXT sentence, emu_u32 line);

// ---- Exported by every translated library, for each kernel NAME and function constant INDEX -----
//   void emu_entry_NAME()                 runs the calling GPU thread
//   emu_u32 emu_threadgroup_bytes_NAME()  of all threadgroup arrays that it declares
//   emu_u32 emu_max_threads_NAME()        [[max_total_threads_per_threadgroup]]; 0: not given
//   bool, int or float emu_constant_INDEX to be written before a launch
