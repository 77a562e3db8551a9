// The cases of int8_linear; see cpu_ops.cpp.
#include <cmath>
#include <random>
#include <vector>

#include "int8_linear/cpu/compute.h"
#include "judging.h"

using namespace mlx_esm_kernels::cpu;

namespace {

// Two layers of one x, the second without bias and residual. Every row of x has a 127, so that its
// whole numbers are their own rounding.
void int8_linear_case(int M, int N, int K, bool gelu, std::mt19937& rng) {
  std::uniform_int_distribution<int> byte(-127, 127), byte_of_weight(-128, 127);
  Floats x(static_cast<size_t>(M) * K), bias = random_floats(N, rng);
  std::vector<int8_t> w(static_cast<size_t>(N) * K);
  for (float& number : x) {
    number = static_cast<float>(byte(rng));
  }
  for (int m = 0; m < M; ++m) {
    x[static_cast<size_t>(m) * K] = 127;
  }
  for (int8_t& number : w) {
    number = static_cast<int8_t>(byte_of_weight(rng));
  }
  const Floats scales(N, 1e-4f / std::sqrt(static_cast<float>(K)));
  Floats residual = random_floats(static_cast<size_t>(M) * N, rng);
  Floats y(residual.size(), NAN), other = y;
  std::vector<double> y_true(y.size()), other_true(y.size());
  for (int m = 0; m < M; ++m) {
    for (int n = 0; n < N; ++n) {
      double sum = 0;
      for (int k = 0; k < K; ++k) {
        sum += static_cast<double>(x[m * K + k]) * w[n * K + k];
      }
      const auto activated = [&](double h) {
        return gelu ? h * 0.5 * std::erfc(-h / std::sqrt(2.0)) : h;
      };
      other_true[m * N + n] = activated(sum * scales[n]);
      y_true[m * N + n] = activated(sum * scales[n] + bias[n]) + residual[m * N + n];
    }
  }
  const LinearInputs in{
      Dtype::float32, {{x.data(), K, 1}, M, K}, {{w.data(), K, 1}, N, K}, Dtype::float32, gelu};
  const Int8LinearForward layers[] = {
      {{in, bias.data(), residual.data(), y.data(), nullptr}, scales.data()},
      {{in, nullptr, nullptr, other.data(), nullptr}, scales.data()}};
  int8_linear_forward(layers, 2);
  expect_close("int8_linear y", y, y_true);
  expect_close("int8_linear y of another layer", other, other_true);
}

}  // namespace

void int8_linear_cases(std::mt19937& rng) {
  for (int M : {1, 7, 50, 400}) {
    int8_linear_case(M, 65, 19, M % 2 == 0, rng);
    int8_linear_case(M, 1, 1, false, rng);
  }
  int8_linear_case(20, 1100, 64, true, rng);
}
