#include "linear/cpu/compute.h"

#include <algorithm>
#include <vector>

#include "ceil_div.h"
#include "cpu/scratch.h"
#include "cpu/threads.h"
#include "linear/cpu/bfloat16.h"
#include "linear/cpu/blas.h"
#include "linear/cpu/kernels.h"
#include "linear/cpu/start_backward.h"

namespace mlx_esm_kernels::cpu {

namespace {

using Floats = Scratch<float>;

// BLAS copies the operands of a tile: the larger the tile, the less it copies for each product.
constexpr int64_t kRows = 512;      // rows of x that one task multiplies
constexpr int64_t kColumns = 1024;  // and columns of its result
constexpr int64_t kWeight = 768;    // side of a tile of the weight's gradient
constexpr int64_t kDepth = 512;     // rows that one partial sum of that gradient takes in at least
constexpr int64_t kTasks = 4;       // that are enough for that gradient
constexpr int64_t kPassRows = 64;   // rows of a task that multiplies nothing

const LinearKernels& kernels() {
  return MLX_ESM_KERNELS_IN_USE(linear_kernels);
}

struct Tile {
  int64_t layer, row, rows, column, columns;
};

// Cuts one m x n matrix for each n; tiles of the same rows follow one another.
std::vector<Tile> tiles_of(int64_t m, const std::vector<int64_t>& widths) {
  std::vector<Tile> tiles;
  for (int64_t row = 0; row < m; row += kRows) {
    for (size_t layer = 0; layer < widths.size(); ++layer) {
      const int64_t n = widths[layer];
      for (int64_t column = 0; column < n; column += kColumns) {
        tiles.push_back({static_cast<int64_t>(layer), row, std::min(kRows, m - row), column,
                         std::min(kColumns, n - column)});
      }
    }
  }
  return tiles;
}

template <class Body>
void for_each(const std::vector<Tile>& tiles, const Body& body) {
  parallel_for(static_cast<int64_t>(tiles.size()), [&](int64_t i) { body(tiles[i]); });
}

// What BLAS can read: the matrix itself where it is float32 with one contiguous axis, otherwise a
// float32 copy in `buffer`.
Operand as_operand(const Matrix& x, Dtype dtype, Floats& buffer) {
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
  parallel_for(ceil_div(x.rows, kPassRows), [&](int64_t i) {
    const int64_t begin = i * kPassRows;
    const int64_t end = std::min(begin + kPassRows, x.rows);
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

// dx = the sum over the layers of dh weight.
void input_gradient(const LinearBackward& a, const std::vector<Operand>& dh,
                    const std::vector<Operand>& weights, const std::vector<int64_t>& depths) {
  const int64_t K = a.x.columns;
  for_each(tiles_of(a.x.rows, {K}), [&](const Tile& t) {
    const bool direct = a.dtype == Dtype::float32;
    float* c = direct ? static_cast<float*>(a.dx) + t.row * K + t.column
                      : thread_scratch(t.rows * t.columns);
    const int64_t ld = direct ? K : t.columns;
    for (size_t i = 0; i < dh.size(); ++i) {
      sgemm(t.rows, t.columns, depths[i], from(dh[i], t.row, 0), from(weights[i], 0, t.column), c,
            ld, i > 0);
    }
    for (int64_t i = 0; i < t.rows && !direct; ++i) {
      kernels().write(c + i * ld, a.dtype, t.columns, a.dx, (t.row + i) * K + t.column);
    }
  });
}

// dweight = dh^T x. Where it is too small to occupy the threads, the rows are cut into pieces whose
// partial sums are added in order.
void weight_gradient(const LinearBackward& a, Operand dh, Operand x) {
  const int64_t M = a.x.rows, N = a.weight.rows, K = a.weight.columns;
  const int64_t tiles = ceil_div(N, kWeight) * ceil_div(K, kWeight);
  // BLAS may return early where there is nothing to add up, and leave the memory as it was.
  if (M == 0) {
    const std::vector<float> zeros(N * K);
    kernels().write(zeros.data(), a.weight_dtype, N * K, a.dweight, 0);
    return;
  }
  const int64_t splits = std::clamp<int64_t>(M / kDepth, 1, ceil_div(kTasks, tiles));
  const int64_t depth = ceil_div(M, splits);
  const bool direct = splits == 1 && a.weight_dtype == Dtype::float32;
  Floats partial;
  if (!direct) {
    partial.resize(splits * N * K);
  }
  float* sums = direct ? static_cast<float*>(a.dweight) : partial.data();
  parallel_for(splits * tiles, [&](int64_t i) {
    const int64_t split = i / tiles, tile = i % tiles;
    const int64_t n = tile / ceil_div(K, kWeight) * kWeight,
                  k = tile % ceil_div(K, kWeight) * kWeight;
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
    kernels().write(total, a.weight_dtype, K, a.dweight, n * K);
  });
}

}  // namespace

void linear_forward(const LinearForward* layers, int count) {
  if (multiplies(layers[0].dtype)) {
    return bfloat16_forward(layers, count);
  }
  Floats x_copy;
  std::vector<Floats> weight_copies(count);
  const Operand x = as_operand(layers[0].x, layers[0].dtype, x_copy);
  std::vector<Operand> weights;
  std::vector<int64_t> widths;
  for (int i = 0; i < count; ++i) {
    weights.push_back(
        transpose(as_operand(layers[i].weight, layers[i].weight_dtype, weight_copies[i])));
    widths.push_back(layers[i].weight.rows);
  }
  for_each(tiles_of(layers[0].x.rows, widths), [&](const Tile& t) {
    const LinearForward& f = layers[t.layer];
    const int64_t N = f.weight.rows;
    LinearKernels::Tile tile{nullptr, t.columns, t.row, t.column, t.rows, t.columns};
    if (f.dtype == Dtype::float32) {
      tile.data = static_cast<float*>(f.pre != nullptr ? f.pre : f.y) + t.row * N + t.column;
      tile.ld = N;
    } else {
      tile.data = thread_scratch(t.rows * t.columns);
    }
    sgemm(t.rows, t.columns, f.x.columns, from(x, t.row, 0), from(weights[t.layer], 0, t.column),
          tile.data, tile.ld, false);
    if (f.dtype != Dtype::float32 || f.gelu || f.bias != nullptr || f.residual != nullptr) {
      kernels().finish(f, tile);
    }
  });
}

void linear_backward(const LinearBackward* layers, int count) {
  const LinearBackward& first = layers[0];
  if (multiplies(first.dtype)) {
    return bfloat16_backward(layers, count);
  }
  Floats x_copy;
  std::vector<Floats> dh_copies(count), weight_copies(count);
  std::vector<Scratch<char>> dh_buffers(count);
  std::vector<Operand> dh, weights;
  std::vector<int64_t> depths;
  for (int i = 0; i < count; ++i) {
    const Matrix gradient = start_backward(layers[i], Dtype::float32, dh_buffers[i]);
    dh.push_back(as_operand(gradient, Dtype::float32, dh_copies[i]));
    depths.push_back(layers[i].weight.rows);
  }
  if (first.dx != nullptr) {
    for (int i = 0; i < count; ++i) {
      weights.push_back(as_operand(layers[i].weight, layers[i].weight_dtype, weight_copies[i]));
    }
    input_gradient(first, dh, weights, depths);
  }
  if (first.dweight != nullptr) {
    const Operand x = as_operand(first.x, first.dtype, x_copy);
    for (int i = 0; i < count; ++i) {
      weight_gradient(layers[i], dh[i], x);
    }
  }
}

}  // namespace mlx_esm_kernels::cpu
