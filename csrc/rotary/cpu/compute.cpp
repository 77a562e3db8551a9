#include "rotary/cpu/compute.h"

#include <algorithm>

#include "ceil_div.h"
#include "cpu/threads.h"
#include "rotary/cpu/kernels.h"

namespace mlx_esm_kernels::cpu {

namespace {

constexpr int64_t kTaskNumbers = 1 << 15;  // that are worth a task

}  // namespace

void rotary_turn(const RotaryTurn& args) {
  const int64_t tokens = static_cast<int64_t>(args.B) * args.L;
  const int64_t width = static_cast<int64_t>(args.H) * args.D;
  const int64_t of_a_task = std::clamp<int64_t>(kTaskNumbers / width, 1, 512);
  const RotaryKernels& kernels = MLX_ESM_KERNELS_IN_USE(rotary_kernels);
  parallel_for(ceil_div(tokens, of_a_task), [&](int64_t i) {
    kernels.turn(args, i * of_a_task, std::min(tokens, (i + 1) * of_a_task),
                 thread_scratch(rotary_scratch(args.H, args.D)));
  });
}

}  // namespace mlx_esm_kernels::cpu
