#include "layer_norm/cpu/compute.h"

#include <algorithm>
#include <vector>

#include "ceil_div.h"
#include "cpu/threads.h"
#include "layer_norm/cpu/kernels.h"

namespace mlx_esm_kernels::cpu {

namespace {

constexpr int64_t kTaskNumbers = 1 << 15;  // that are worth a task

const LayerNormKernels& kernels() {
  return MLX_ESM_KERNELS_IN_USE(layer_norm_kernels);
}

int64_t rows_of_a_task(const LayerNormInputs& in) {
  return std::clamp<int64_t>(kTaskNumbers / in.C, 1, 512);
}

}  // namespace

void layer_norm_forward(const LayerNormForward& f) {
  const int64_t rows = rows_of_a_task(f);
  parallel_for(ceil_div(f.M, rows), [&](int64_t i) {
    kernels().forward(f, i * rows, std::min((i + 1) * rows, f.M), thread_scratch(f.C));
  });
}

void layer_norm_backward(const LayerNormBackward& b) {
  const int64_t rows = rows_of_a_task(b), blocks = ceil_div(b.M, rows), C = b.C;
  std::vector<float> partial(blocks * 2 * C, 0.0f);
  parallel_for(blocks, [&](int64_t i) {
    float* sums = partial.data() + i * 2 * C;
    kernels().backward(b, i * rows, std::min((i + 1) * rows, b.M), sums, sums + C,
                       thread_scratch(2 * C));
  });
  std::fill_n(b.dweight, C, 0.0f);
  std::fill_n(b.dbias, C, 0.0f);
  for (int64_t i = 0; i < blocks; ++i) {
    const float* sums = partial.data() + i * 2 * C;
    for (int64_t c = 0; c < C; ++c) {
      b.dweight[c] += sums[c];
      b.dbias[c] += sums[C + c];
    }
  }
}

}  // namespace mlx_esm_kernels::cpu
