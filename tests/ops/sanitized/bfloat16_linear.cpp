// The cases of linear in bfloat16; see cpu_ops.cpp. Numbers are few and whole, so that every sum is
// exact in bfloat16 too, whatever its order; and once they are any.
#include <cmath>
#include <random>
#include <vector>

#include "judging.h"
#include "linear/cpu/compute.h"

using namespace mlx_esm_kernels::cpu;

namespace {

// How a matrix lies: contiguous, transposed, with a gap after each number, or not on a boundary of
// four bytes.
enum class Layout { rows, columns, gaps, odd };

// A matrix of whole numbers and its bfloat16 at exact size.
struct Numbers {
  int rows, columns;
  Layout layout;
  std::vector<int> values;
  std::vector<uint16_t> bits;

  Numbers(int m, int n, Layout lies, std::mt19937& rng)
      : rows(m), columns(n), layout(lies), values(static_cast<size_t>(m) * n), bits(first()) {
    std::uniform_int_distribution<int> few(-1, 1);
    const Matrix at = matrix();
    const int64_t size = values.empty() ? 0 : at.row_stride * (m - 1) + at.column_stride * (n - 1);
    bits.resize(static_cast<size_t>(size) + 1 + first());
    for (int i = 0; i < m; ++i) {
      for (int j = 0; j < n; ++j) {
        const int number = few(rng);
        values[static_cast<size_t>(i) * n + j] = number;
        bits[first() + i * at.row_stride + j * at.column_stride] =
            number == 0 ? 0 : (number < 0 ? 0xbf80 : 0x3f80);
      }
    }
  }

  size_t first() const {
    return layout == Layout::odd ? 1 : 0;
  }

  Matrix matrix() const {
    const void* data = bits.data() + first();
    if (layout == Layout::columns) {
      return {{data, 1, rows}, rows, columns};
    }
    const int64_t step = layout == Layout::gaps ? 2 : 1;
    return {{data, columns * step, step}, rows, columns};
  }

  int operator()(int i, int j) const {
    return values[static_cast<size_t>(i) * columns + j];
  }
};

float number(uint16_t bits) {
  const uint32_t wide = static_cast<uint32_t>(bits) << 16;
  float x;
  __builtin_memcpy(&x, &wide, sizeof x);
  return x;
}

template <class Truth>
void expect_exact(const char* what, const std::vector<uint16_t>& got, int rows, int columns,
                  const Truth& truth) {
  int wrong = 0;
  for (int i = 0; i < rows; ++i) {
    for (int j = 0; j < columns; ++j) {
      wrong += number(got[static_cast<size_t>(i) * columns + j]) != static_cast<float>(truth(i, j));
    }
  }
  wrong == 0 ? ++passed : ++failed;
  if (wrong != 0) {
    std::printf("%s (%d, %d): %d numbers are wrong\n", what, rows, columns, wrong);
  }
}

std::vector<uint16_t> unwritten(int rows, int columns) {
  return std::vector<uint16_t>(static_cast<size_t>(rows) * columns, 0x7fc0);
}

// Two layers of one x, of N and of 7 columns.
void bfloat16_case(int M, int N, int K, Layout layout, std::mt19937& rng) {
  const Numbers x(M, K, layout, rng);
  const Numbers weights[] = {{N, K, layout, rng}, {7, K, Layout::rows, rng}};
  const Numbers dys[] = {{M, N, layout, rng}, {M, 7, Layout::rows, rng}};
  std::vector<uint16_t> y[] = {unwritten(M, N), unwritten(M, 7)};
  std::vector<uint16_t> dweight[] = {unwritten(N, K), unwritten(7, K)};
  std::vector<uint16_t> dx = unwritten(M, K);
  Floats dbias[] = {Floats(N, NAN), Floats(7, NAN)};
  std::vector<LinearForward> forward;
  std::vector<LinearBackward> backward;
  for (int i = 0; i < 2; ++i) {
    const LinearInputs in{Dtype::bfloat16, x.matrix(), weights[i].matrix(), Dtype::bfloat16, false};
    forward.push_back({in, nullptr, nullptr, y[i].data(), nullptr});
    backward.push_back(
        {in, dys[i].matrix(), nullptr, dx.data(), dweight[i].data(), dbias[i].data()});
  }
  linear_forward(forward.data(), 2);
  linear_backward(backward.data(), 2);
  const auto sum = [](int n, const auto& term) {
    int total = 0;
    for (int i = 0; i < n; ++i) {
      total += term(i);
    }
    return total;
  };
  for (int i = 0; i < 2; ++i) {
    const Numbers &w = weights[i], &dy = dys[i];
    expect_exact("bfloat16 y", y[i], M, w.rows,
                 [&](int m, int n) { return sum(K, [&](int k) { return x(m, k) * w(n, k); }); });
    expect_exact("bfloat16 dweight", dweight[i], w.rows, K,
                 [&](int n, int k) { return sum(M, [&](int m) { return dy(m, n) * x(m, k); }); });
    std::vector<double> exact(w.rows);
    for (int n = 0; n < w.rows; ++n) {
      exact[n] = sum(M, [&](int m) { return dy(m, n); });
    }
    expect_close("bfloat16 dbias", dbias[i], exact);
  }
  expect_exact("bfloat16 dx", dx, M, K, [&](int m, int k) {
    return sum(N, [&](int n) { return dys[0](m, n) * weights[0](n, k); }) +
           sum(7, [&](int n) { return dys[1](m, n) * weights[1](n, k); });
  });
}

std::vector<uint16_t> random_bits(int n, std::mt19937& rng) {
  std::vector<uint16_t> bits;
  for (const float x : random_floats(n, rng)) {
    uint32_t wide;
    __builtin_memcpy(&wide, &x, sizeof wide);
    bits.push_back(static_cast<uint16_t>(wide >> 16));
  }
  return bits;
}

// Sums are rounded as the instruction rounds them, in float32, and once to bfloat16.
void rounded_case(int M, int N, int K, std::mt19937& rng) {
  const std::vector<uint16_t> x = random_bits(M * K, rng), w = random_bits(N * K, rng);
  std::vector<uint16_t> y = unwritten(M, N);
  const LinearForward layer{
      {Dtype::bfloat16, {{x.data(), K, 1}, M, K}, {{w.data(), K, 1}, N, K}, Dtype::bfloat16, false},
      nullptr,
      nullptr,
      y.data(),
      nullptr};
  linear_forward(&layer, 1);
  int wrong = 0;
  for (int m = 0; m < M; ++m) {
    for (int n = 0; n < N; ++n) {
      double sum = 0, size = 0;
      for (int k = 0; k < K; ++k) {
        const double product = static_cast<double>(number(x[m * K + k])) * number(w[n * K + k]);
        sum += product;
        size += std::fabs(product);
      }
      const double error = std::fabs(number(y[m * N + n]) - sum);
      wrong += !(error <= std::fabs(sum) / 256 + 1e-5 * size);
    }
  }
  wrong == 0 ? ++passed : ++failed;
  if (wrong != 0) {
    std::printf("bfloat16 y of any numbers (%d, %d, %d): %d are wrong\n", M, N, K, wrong);
  }
}

}  // namespace

void bfloat16_linear_cases(std::mt19937& rng) {
  for (Layout layout : {Layout::rows, Layout::columns, Layout::gaps, Layout::odd}) {
    bfloat16_case(1, 1, 1, layout, rng);
    bfloat16_case(0, 3, 5, layout, rng);
    bfloat16_case(37, 70, 33, layout, rng);
    bfloat16_case(64, 64, 64, layout, rng);
    bfloat16_case(200, 19, 130, layout, rng);
  }
  bfloat16_case(8, 1100, 40, Layout::rows, rng);
  bfloat16_case(40, 8, 1100, Layout::rows, rng);
  bfloat16_case(1100, 8, 40, Layout::rows, rng);
  rounded_case(35, 50, 130, rng);
}
