// Compiled once per instruction set, with CPU_TARGET naming its namespace. See adamw.md.
#include "adamw/cpu/kernels.h"

#include "cpu/rows.h"

namespace mlx_esm_kernels::cpu::CPU_TARGET {

namespace {

float sum_of_squares(const float* x, int64_t n) {
  return dot(x, x, n);
}

// The loop is one over lanes, which the compiler makes a single instruction.
inline vfloat square_root(vfloat x) {
  vfloat root;
  for (int lane = 0; lane < kLanes; ++lane) {
    root[lane] = __builtin_sqrtf(x[lane]);
  }
  return root;
}

struct Updated {
  vfloat w, m, v;
};

inline Updated updated(const AdamWFactors& f, float kept, vfloat w, vfloat g, vfloat m, vfloat v) {
  m = f.beta_1 * m + f.share_1 * g;
  v = f.beta_2 * v + f.share_2 * (g * g);
  return {kept * w - f.rate * m / (square_root(v) + f.epsilon), m, v};
}

void update(const AdamWParameter& p, const AdamWFactors& f, int64_t begin, int64_t end) {
  const float kept = p.decays ? f.kept : 1.0f;
  int64_t i = begin;
  for (; i + kLanes <= end; i += kLanes) {
    const Updated next =
        updated(f, kept, load(p.w + i), load(p.g + i), load(p.m + i), load(p.v + i));
    store(p.next_w + i, next.w);
    store(p.next_m + i, next.m);
    store(p.next_v + i, next.v);
  }
  if (i < end) {
    const int rest = static_cast<int>(end - i);
    const auto some = [&](const float* x) { return load_partial(x + i, rest); };
    const Updated next = updated(f, kept, some(p.w), some(p.g), some(p.m), some(p.v));
    store_partial(p.next_w + i, next.w, rest);
    store_partial(p.next_m + i, next.m, rest);
    store_partial(p.next_v + i, next.v, rest);
  }
}

}  // namespace

const AdamWKernels adamw_kernels = {sum_of_squares, update};

}  // namespace mlx_esm_kernels::cpu::CPU_TARGET
