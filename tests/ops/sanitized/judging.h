// What the cases of all ops share: random numbers, and the judgement of a result.
#pragma once

#include <atomic>
#include <cmath>
#include <cstdio>
#include <random>
#include <vector>

inline std::atomic<int> passed{0}, failed{0};

using Floats = std::vector<float>;

inline Floats random_floats(size_t n, std::mt19937& rng) {
  std::normal_distribution<float> normal;
  Floats out(n);
  for (float& x : out) {
    x = normal(rng);
  }
  return out;
}

// Inputs are standard normal, so that an output's own rounding is of the order of 1 even where the
// true value vanishes, as the gradient of a softmax over one key does.
inline void expect_close(const char* what, const Floats& got, const std::vector<double>& truth) {
  double error = 0, size = 0.5;
  for (size_t i = 0; i < truth.size(); ++i) {
    error = std::fmax(error, std::isnan(got[i]) ? INFINITY : std::fabs(got[i] - truth[i]));
    size = std::fmax(size, std::fabs(truth[i]));
  }
  const bool good = error <= 2e-5 * size;
  good ? ++passed : ++failed;
  if (!good) {
    std::printf("%s: error %g at size %g\n", what, error, size);
  }
}

inline double dot(const float* a, const float* b, int n) {
  double sum = 0;
  for (int i = 0; i < n; ++i) {
    sum += static_cast<double>(a[i]) * b[i];
  }
  return sum;
}

// In row_ops.cpp: layer norm, rotary and adamw.
void row_op_cases(std::mt19937& rng);

// In files of their own.
void bfloat16_linear_cases(std::mt19937& rng);
void int8_linear_cases(std::mt19937& rng);
