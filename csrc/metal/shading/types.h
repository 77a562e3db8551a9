// What structs and constants shared by host and kernels are made of. Free of C++ library headers:
// the CPU kernels share some of them.
#pragma once

#ifdef __METAL_VERSION__
#include <metal_stdlib>
#define MLX_ESM_KERNELS_CONSTANT constant constexpr
#else
#include <stdint.h>
#define MLX_ESM_KERNELS_CONSTANT constexpr
#endif

MLX_ESM_KERNELS_CONSTANT int kLanesOfSimdgroup = 32;
// Rows and columns of a fragment (fragment.h); a plain 8 in the offsets within a kernel.
MLX_ESM_KERNELS_CONSTANT int kFragment = 8;
