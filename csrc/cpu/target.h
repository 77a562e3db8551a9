// Which instruction set the CPU kernels use. Free of MLX and of C++ library headers.
#pragma once

namespace mlx_esm_kernels::cpu {

enum class Dtype { float32, float16, bfloat16 };

enum class Target { baseline, avx2 };

// The best instruction set that was built in and that this machine executes, or the one that
// MLX_ESM_KERNELS_CPU_TARGET names ("baseline" or "avx2"). Decided once per process.
// Throws std::invalid_argument for a name that is unknown or cannot run here.
Target target();

const char* target_name(Target target);

}  // namespace mlx_esm_kernels::cpu
