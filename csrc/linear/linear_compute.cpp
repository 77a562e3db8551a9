#include "linear/linear_compute.h"

#include <algorithm>
#include <vector>

#include "cpu/blas.h"
#include "cpu/threads.h"
#include "linear/linear_kernels.h"

namespace mlx_esm_kernels::cpu {

namespace {

constexpr int64_t kRows = 256;     // rows of x that one task multiplies
constexpr int64_t kColumns = 512;  // and columns of its result
constexpr int64_t kWeight = 256;   // side of a tile of the weight's gradient
constexpr int64_t kDepth = 1024;   // rows that one partial sum of that gradient takes in

const LinearKernels& kernels() {
  return MLX_ESM_KERNELS_IN_USE(linear_kernels);
}

// Calls body(row, rows, column, columns) for every tile of an m x n matrix.
template <class Body>
void for_each_tile(int64_t m, int64_t n, int64_t rows, int64_t columns, const Body& body) {
  const int64_t across = pieces(n, columns);
  parallel_for(pieces(m, rows) * across, [&](int64_t i) {
    const int64_t row = i / across * rows;
    const int64_t column = i % across * columns;
    body(row, std::min(rows, m - row), column, std::min(columns, n - column));
  });
}

// What BLAS can read: the matrix itself where it is float32 with one contiguous axis, otherwise a
// float32 copy in `buffer`.
Operand as_operand(const Matrix& x, Dtype dtype, std::vector<float>& buffer) {
  const auto* data = static_cast<const float*>(x.data);
  if (dtype == Dtype::float32) {
    if (x.column_stride == 1 && x.row_stride >= std::max<int64_t>(x.columns, 1)) {
      return {data, x.row_stride, false};
    }
    if (x.row_stride == 1 && x.column_stride >= std::max<int64_t>(x.rows, 1)) {
      return {data, x.column_stride, true};
    }
  }
  buffer.resize(x.rows * x.columns);
  parallel_for(pieces(x.rows, kRows), [&](int64_t i) {
    const int64_t begin = i * kRows;
    const int64_t end = std::min(begin + kRows, x.rows);
    kernels().read(x, dtype, begin, end, buffer.data() + begin * x.columns);
  });
  return {buffer.data(), std::max<int64_t>(x.columns, 1), false};
}

Operand transpose(Operand a) {
  a.transposed = !a.transposed;
  return a;
}

// The operand from its element [row, column] on.
Operand from(Operand a, int64_t row, int64_t column) {
  a.data += a.transposed ? column * a.ld + row : row * a.ld + column;
  return a;
}

// out (m x n, contiguous, in the dtype) = a b.
void multiply_into(int64_t m, int64_t n, int64_t k, Operand a, Operand b, Dtype dtype, void* out) {
  for_each_tile(m, n, kRows, kColumns,
                [&](int64_t row, int64_t rows, int64_t column, int64_t columns) {
                  if (dtype == Dtype::float32) {
                    float* c = static_cast<float*>(out) + row * n + column;
                    sgemm(rows, columns, k, from(a, row, 0), from(b, 0, column), c, n, false);
                    return;
                  }
                  float* c = thread_scratch(rows * columns);
                  sgemm(rows, columns, k, from(a, row, 0), from(b, 0, column), c, columns, false);
                  for (int64_t i = 0; i < rows; ++i) {
                    kernels().write(c + i * columns, dtype, columns, out, (row + i) * n + column);
                  }
                });
}

// dweight = dh^T x. Where it is too small to occupy the threads, the rows are cut into pieces whose
// partial sums are added in order.
void weight_gradient(const LinearBackward& a, Operand dh, Operand x) {
  const int64_t M = a.x.rows, N = a.weight.rows, K = a.weight.columns;
  const int64_t tiles = pieces(N, kWeight) * pieces(K, kWeight);
  // BLAS may return early where there is nothing to add up, and leave the memory as it was.
  if (M == 0) {
    const std::vector<float> zeros(N * K);
    kernels().write(zeros.data(), a.dtype, N * K, a.dweight, 0);
    return;
  }
  const int64_t splits = tiles >= 8 ? 1 : std::clamp<int64_t>(M / kDepth, 1, 8);
  const int64_t depth = pieces(M, splits);
  const bool direct = splits == 1 && a.dtype == Dtype::float32;
  std::vector<float> partial(direct ? 0 : splits * N * K);
  float* sums = direct ? static_cast<float*>(a.dweight) : partial.data();
  parallel_for(splits * tiles, [&](int64_t i) {
    const int64_t split = i / tiles, tile = i % tiles;
    const int64_t n = tile / pieces(K, kWeight) * kWeight, k = tile % pieces(K, kWeight) * kWeight;
    const int64_t m = split * depth, rows = std::min(depth, M - m);
    float* c = sums + split * N * K + n * K + k;
    sgemm(std::min(kWeight, N - n), std::min(kWeight, K - k), rows, transpose(from(dh, m, n)),
          from(x, m, k), c, K, false);
  });
  if (direct) {
    return;
  }
  parallel_for(N, [&](int64_t n) {
    float* total = partial.data() + n * K;
    for (int64_t s = 1; s < splits; ++s) {
      const float* more = total + s * N * K;
      for (int64_t k = 0; k < K; ++k) {
        total[k] += more[k];
      }
    }
    kernels().write(total, a.dtype, K, a.dweight, n * K);
  });
}

// The gradient before the activation as an operand, and the bias gradient from the same pass.
Operand start_backward(const LinearBackward& a, std::vector<float>& dh) {
  const int64_t M = a.x.rows, N = a.weight.rows;
  const bool as_it_is = !a.gelu && a.dtype == Dtype::float32;
  if (as_it_is && a.dbias == nullptr) {
    return as_operand(a.dy, a.dtype, dh);
  }
  const int64_t blocks = pieces(M, kRows);
  std::vector<float> partial(a.dbias == nullptr ? 0 : blocks * N, 0.0f);
  if (!as_it_is) {
    dh.resize(M * N);
  }
  parallel_for(blocks, [&](int64_t i) {
    const int64_t begin = i * kRows, end = std::min(begin + kRows, M);
    kernels().start_backward(a, begin, end, as_it_is ? nullptr : dh.data(),
                             a.dbias == nullptr ? nullptr : partial.data() + i * N,
                             thread_scratch(N));
  });
  if (a.dbias != nullptr) {
    std::fill_n(a.dbias, N, 0.0f);
    for (int64_t i = 0; i < blocks; ++i) {
      for (int64_t n = 0; n < N; ++n) {
        a.dbias[n] += partial[i * N + n];
      }
    }
  }
  if (as_it_is) {
    return as_operand(a.dy, a.dtype, dh);
  }
  return {dh.data(), std::max<int64_t>(N, 1), false};
}

}  // namespace

void linear_forward(const LinearForward& f) {
  const int64_t M = f.x.rows, N = f.weight.rows, K = f.weight.columns;
  std::vector<float> x_copy, weight_copy;
  const Operand x = as_operand(f.x, f.dtype, x_copy);
  const Operand weight_t = transpose(as_operand(f.weight, f.dtype, weight_copy));
  for_each_tile(M, N, kRows, kColumns,
                [&](int64_t row, int64_t rows, int64_t column, int64_t columns) {
                  LinearKernels::Tile tile{nullptr, columns, row, column, rows, columns};
                  if (f.dtype == Dtype::float32) {
                    tile.data = static_cast<float*>(f.gelu ? f.pre : f.y) + row * N + column;
                    tile.ld = N;
                  } else {
                    tile.data = thread_scratch(rows * columns);
                  }
                  sgemm(rows, columns, K, from(x, row, 0), from(weight_t, 0, column), tile.data,
                        tile.ld, false);
                  if (f.dtype != Dtype::float32 || f.gelu || f.bias != nullptr) {
                    kernels().finish(f, tile);
                  }
                });
}

void linear_backward(const LinearBackward& a) {
  const int64_t M = a.x.rows, N = a.weight.rows, K = a.weight.columns;
  std::vector<float> dh_copy, x_copy, weight_copy;
  const Operand dh = start_backward(a, dh_copy);
  if (a.dx != nullptr) {
    multiply_into(M, K, N, dh, as_operand(a.weight, a.dtype, weight_copy), a.dtype, a.dx);
  }
  if (a.dweight != nullptr) {
    weight_gradient(a, dh, as_operand(a.x, a.dtype, x_copy));
  }
}

}  // namespace mlx_esm_kernels::cpu
