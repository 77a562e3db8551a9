// Which instruction set the CPU kernels use. Free of MLX and of C++ library headers.
#pragma once

namespace mlx_esm_kernels::cpu {

enum class Dtype { float32, float16, bfloat16 };

// avx512_vnni has the kernels of avx512, and its own of int8_linear, which avx512_bf16 has too: no
// processor has its instructions without VNNI. avx512_amx has the kernels of avx512, and its own of
// int8_linear and of bfloat16 linear layers. On arm64 neon_dotprod has the kernels of baseline, and
// its own of int8_linear; neon_bf16 has its own of bfloat16 linear layers as well.
enum class Target {
  baseline,
  avx2,
  avx512,
  avx512_vnni,
  avx512_bf16,
  avx512_amx,
  neon_dotprod,
  neon_bf16
};

// The fastest instruction set that was built in and that this machine executes, or the one that
// MLX_ESM_KERNELS_CPU_TARGET names, as target_name() spells it. Decided once per process. Throws
// std::invalid_argument for a name that is unknown or cannot run here.
Target target();

const char* target_name(Target target);

// Declares a table of kernels in the namespace of each instruction set.
#define MLX_ESM_KERNELS_DECLARE(Type, table) \
  namespace baseline {                       \
  extern const Type table;                   \
  }                                          \
  namespace avx2 {                           \
  extern const Type table;                   \
  }                                          \
  namespace avx512 {                         \
  extern const Type table;                   \
  }                                          \
  namespace avx512_bf16 {                    \
  extern const Type table;                   \
  }

// The table of kernels of the instruction set in use; each namespace that bears the name of one has
// its own. A macro, since a namespace cannot be an argument and all but one exist only on x86-64.
// Elsewhere a name that is wrong is still an error.
#ifdef MLX_ESM_KERNELS_X86
#define MLX_ESM_KERNELS_IN_USE(table)                   \
  (target() == Target::avx512_bf16 ? avx512_bf16::table \
   : target() >= Target::avx512    ? avx512::table      \
   : target() == Target::avx2      ? avx2::table        \
                                   : baseline::table)
#else
#define MLX_ESM_KERNELS_IN_USE(table) (static_cast<void>(target()), baseline::table)
#endif

}  // namespace mlx_esm_kernels::cpu
