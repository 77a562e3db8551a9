// The cases of the ops that go row by row; see cpu_ops.cpp.
#include <cmath>
#include <random>
#include <vector>

#include "adamw/cpu/compute.h"
#include "judging.h"
#include "layer_norm/cpu/compute.h"
#include "rotary/cpu/compute.h"

using namespace mlx_esm_kernels::cpu;

namespace {

// ---- layer norm ---------------------------------------------------------------------------------

void layer_norm_case(int M, int C, std::mt19937& rng) {
  const size_t size = static_cast<size_t>(M) * C;
  const Floats x = random_floats(size, rng), delta = random_floats(size, rng),
               w = random_floats(C, rng), b = random_floats(C, rng), dy = random_floats(size, rng);
  Floats s(size), y(size), dx(size), dw(C), db(C);
  std::vector<double> y_true(size), dx_true(size), dw_true(C), db_true(C);
  for (int m = 0; m < M; ++m) {
    const auto sum = [&](int c) { return double(x[m * C + c]) + delta[m * C + c]; };
    double mean = 0, variance = 0, g_mean = 0, gn_mean = 0;
    for (int c = 0; c < C; ++c) {
      mean += sum(c) / C;
    }
    for (int c = 0; c < C; ++c) {
      variance += (sum(c) - mean) * (sum(c) - mean) / C;
    }
    const double r = 1 / std::sqrt(variance + 1e-5);
    const auto n = [&](int c) { return (sum(c) - mean) * r; };
    for (int c = 0; c < C; ++c) {
      const double d = dy[m * C + c];
      y_true[m * C + c] = n(c) * w[c] + b[c];
      dw_true[c] += d * n(c);
      db_true[c] += d;
      g_mean += d * w[c] / C;
      gn_mean += d * w[c] * n(c) / C;
    }
    for (int c = 0; c < C; ++c) {
      const int i = m * C + c;
      dx_true[i] = delta[i] + r * (double(dy[i]) * w[c] - g_mean - n(c) * gn_mean);
    }
  }
  const LayerNormInputs in{Dtype::float32, M, C, 1e-5f, {x.data(), C, 1}, w.data()};
  layer_norm_forward({in, {delta.data(), C, 1}, b.data(), s.data(), y.data()});
  LayerNormInputs of_sum = in;
  of_sum.x.data = s.data();
  layer_norm_backward(
      {of_sum, {dy.data(), C, 1}, {delta.data(), C, 1}, dx.data(), dw.data(), db.data()});
  expect_close("layer_norm y", y, y_true);
  expect_close("layer_norm dx", dx, dx_true);
  expect_close("layer_norm dweight", dw, dw_true);
  expect_close("layer_norm dbias", db, db_true);
}

// ---- rotary -------------------------------------------------------------------------------------

// Heads side by side, or row by row.
void rotary_case(int H, int L, int D, bool heads_last, std::mt19937& rng) {
  const int B = 2;
  const size_t size = static_cast<size_t>(B) * H * L * D;
  Floats x = random_floats(size, rng), y(size);
  const Floats angles = random_floats(static_cast<size_t>(B) * L * D, rng);
  const int64_t h = heads_last ? D : L * D, l = heads_last ? H * D : D;
  std::vector<double> y_true(size);
  for (int b = 0; b < B; ++b) {
    for (int i = 0; i < H * L * D / 2; ++i) {
      const int pair = i % (D / 2), token = i / (D / 2) % L, head = i / (D / 2) / L;
      const int64_t at = (static_cast<int64_t>(b) * H * L) * D + head * h + token * l + pair;
      const float* turn = angles.data() + (static_cast<int64_t>(b) * L + token) * D + pair;
      const double cosine = turn[0], sine = -turn[D / 2];
      y_true[at] = x[at] * cosine - x[at + D / 2] * sine;
      y_true[at + D / 2] = x[at + D / 2] * cosine + x[at] * sine;
    }
  }
  const int64_t b_stride = static_cast<int64_t>(H) * L * D;
  rotary_turn({B,
               H,
               L,
               D,
               Dtype::float32,
               true,
               {x.data(), b_stride, h, l, 1},
               {y.data(), b_stride, h, l, 1},
               angles.data()});
  expect_close("rotary", y, y_true);
}

// ---- adamw --------------------------------------------------------------------------------------

void adamw_case(int64_t size, std::mt19937& rng) {
  const Floats w = random_floats(size, rng), g = random_floats(size, rng),
               m = random_floats(size, rng), v(size, 0.5f), rates = {0.1f, 0.2f, 0.01f};
  Floats next_w(size), next_m(size), next_v(size);
  const Floats norm = {
      gradient_norm({{g.data(), size / 3}, {g.data() + size / 3, size - size / 3}})};
  const AdamWParameter parameter{size,     true,          w.data(),      g.data(),     m.data(),
                                 v.data(), next_w.data(), next_m.data(), next_v.data()};
  adamw_step({0.8f, 0.98f, 0.3f, 1.0f, rates.data(), norm.data(), {parameter}});
  const double true_norm = std::sqrt(dot(g.data(), g.data(), static_cast<int>(size)));
  std::vector<double> w_true(size), m_true(size), v_true(size);
  for (int64_t i = 0; i < size; ++i) {
    const double clipped = g[i] / std::fmax(true_norm, 1);
    m_true[i] = 0.8 * m[i] + 0.2 * clipped;
    v_true[i] = 0.98 * v[i] + 0.02 * clipped * clipped;
    w_true[i] = (1 - 0.1 * 0.3) * w[i] - 0.2 * m_true[i] / (std::sqrt(v_true[i]) + 0.01);
  }
  expect_close("adamw norm", norm, {true_norm});
  expect_close("adamw w", next_w, w_true);
  expect_close("adamw m", next_m, m_true);
  expect_close("adamw v", next_v, v_true);
}

}  // namespace

void row_op_cases(std::mt19937& rng) {
  for (int C : {16, 37, 700}) {
    layer_norm_case(300, C, rng);
  }
  for (int D : {2, 16, 24, 34, 64}) {
    rotary_case(3, 41, D, true, rng);
    rotary_case(2, 300, D, false, rng);
  }
  for (int size : {1, 100, 200000}) {
    adamw_case(size, rng);
  }
}
