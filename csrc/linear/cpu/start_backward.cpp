#include "linear/cpu/start_backward.h"

#include <algorithm>
#include <vector>

#include "ceil_div.h"
#include "cpu/threads.h"
#include "linear/cpu/kernels.h"

namespace mlx_esm_kernels::cpu {

Matrix start_backward(const LinearBackward& a, Dtype wanted, Scratch<char>& buffer) {
  constexpr int64_t kRows = 64;  // of a task
  const int64_t M = a.x.rows, N = a.weight.rows;
  const bool as_it_is = !a.gelu && a.dtype == wanted;
  if (as_it_is && a.dbias == nullptr) {
    return a.dy;
  }
  const int64_t blocks = ceil_div(M, kRows);
  std::vector<float> partial(a.dbias == nullptr ? 0 : blocks * N, 0.0f);
  if (!as_it_is) {
    buffer.resize(M * N * (wanted == Dtype::float32 ? sizeof(float) : sizeof(uint16_t)));
  }
  parallel_for(blocks, [&](int64_t i) {
    const int64_t begin = i * kRows, end = std::min(begin + kRows, M);
    MLX_ESM_KERNELS_IN_USE(linear_kernels)
        .start_backward(a, begin, end, wanted, buffer.data(),
                        a.dbias == nullptr ? nullptr : partial.data() + i * N, thread_scratch(N));
  });
  if (a.dbias != nullptr) {
    std::fill_n(a.dbias, N, 0.0f);
    for (int64_t i = 0; i < blocks; ++i) {
      for (int64_t n = 0; n < N; ++n) {
        a.dbias[n] += partial[i * N + n];
      }
    }
  }
  return as_it_is ? a.dy : Matrix{{buffer.data(), N, 1}, M, N};
}

}  // namespace mlx_esm_kernels::cpu
