#include "linear/cpu/bfloat16.h"

#include <algorithm>
#include <functional>
#include <vector>

#include "ceil_div.h"
#include "cpu/scratch.h"
#include "cpu/threads.h"
#include "linear/cpu/bfloat16_kernels.h"
#include "linear/cpu/kernels.h"
#include "linear/cpu/start_backward.h"

namespace mlx_esm_kernels::cpu {

namespace {

constexpr int64_t kMostRows = 192;        // rows that one task multiplies
constexpr int64_t kFewestRows = 48;       // and at least, if there are as many
constexpr int64_t kRowNumbers = 1 << 18;  // that are to stay in cache: 512 KiB
constexpr int64_t kWidth = 512;           // by so many columns, 8 panels
constexpr int64_t kDepth = 1024;          // and so deep at a time: 128 KiB of a panel
constexpr int64_t kLinedUp = 64;          // rows that one task copies
constexpr int64_t kSets = 2048;           // bytes: rows so far apart share sets of the cache
constexpr int64_t kLine = 32;             // numbers of a line of the cache

using Bits = Scratch<uint16_t>;
using Tasks = std::vector<std::function<void()>>;

const BFloat16Kernels& kernels() {
  return *bfloat16_kernels_in_use();
}

const LinearKernels& linear() {
  return MLX_ESM_KERNELS_IN_USE(linear_kernels);
}

void run(const Tasks& tasks) {
  parallel_for(static_cast<int64_t>(tasks.size()), [&](int64_t i) { tasks[i](); });
}

int64_t whole_depths(int64_t k) {
  return ceil_div(k, kernels().depth) * kernels().depth;
}

Matrix transposed(const Matrix& a) {
  return {{a.data, a.column_stride, a.row_stride}, a.columns, a.rows};
}

// The left factor of a product: the matrix itself where its rows can be read, otherwise a copy that
// tasks are added for.
class Rows {
 public:
  Rows(const Matrix& a, Tasks& tasks) : pitch_(a.row_stride) {
    const bool readable = a.column_stride == 1 && a.columns == whole_depths(a.columns) &&
                          a.row_stride % 2 == 0 &&
                          reinterpret_cast<uintptr_t>(a.data) % sizeof(float) == 0;
    if (readable) {
      data_ = static_cast<const uint16_t*>(a.data);
      return;
    }
    pitch_ = whole_depths(a.columns);
    if (pitch_ * sizeof(uint16_t) % kSets == 0) {
      pitch_ += kLine;
    }
    copy_.resize(a.rows * pitch_);
    data_ = copy_.data();
    for (int64_t row = 0; row < a.rows; row += kLinedUp) {
      tasks.push_back([a, row, to = copy_.data(), pitch = pitch_] {
        kernels().line_up(a, row, std::min(row + kLinedUp, a.rows), to, pitch);
      });
    }
  }

  const uint16_t* at(int64_t row, int64_t column) const {
    return data_ + row * pitch_ + column;
  }

  int64_t pitch() const {
    return pitch_;
  }

 private:
  const uint16_t* data_;
  int64_t pitch_;
  Bits copy_;
};

// Columns [column, column + columns) of a float32 matrix with a contiguous axis, in bfloat16.
Matrix rounded(const Matrix& b, int64_t column, int64_t columns, void* to) {
  const bool of_columns = b.row_stride == 1;
  const int64_t lines = of_columns ? columns : b.rows, length = of_columns ? b.rows : columns;
  const auto* from = static_cast<const float*>(b.data) + column * b.column_stride;
  for (int64_t i = 0; i < lines; ++i) {
    const float* line = from + i * (of_columns ? b.column_stride : b.row_stride);
    linear().write(line, Dtype::bfloat16, length, to, i * length);
  }
  return {{to, of_columns ? 1 : columns, of_columns ? b.rows : 1}, b.rows, columns};
}

// The right factor, (depth, columns), in panels that tasks are added for.
class Panels {
 public:
  Panels(const Matrix& b, Dtype dtype, Tasks& tasks) : depth_(whole_depths(b.rows)) {
    const int64_t size = depth_ * kBFloat16Panel;
    data_.resize(ceil_div(b.columns, kBFloat16Panel) * size);
    for (int64_t column = 0; column < b.columns; column += kBFloat16Panel) {
      const int64_t columns = std::min(kBFloat16Panel, b.columns - column);
      tasks.push_back([b, dtype, column, columns, depth = depth_, to = at(column, 0)] {
        if (dtype == Dtype::float32) {
          float* some = thread_scratch(b.rows * columns);  // twice what it needs
          kernels().pack(rounded(b, column, columns, some), 0, columns, depth, to);
        } else {
          kernels().pack(b, column, columns, depth, to);
        }
      });
    }
  }

  int64_t depth() const {
    return depth_;
  }

  uint16_t* at(int64_t column, int64_t k) const {
    return data_.data() + column * depth_ + k * kBFloat16Panel;
  }

 private:
  int64_t depth_;
  Bits data_;
};

struct Factors {
  const Rows* rows;
  const Panels* panels;
};

// A matrix that is the sum of products; `finish` gets it in pieces.
struct Sum {
  int64_t rows, columns;
  std::vector<Factors> products;
  std::function<void(const LinearKernels::Tile&)> finish;
};

// `count` rows of a sum at one panel, in c at pitch kBFloat16Panel.
void add_up(const Sum& sum, int64_t row, int64_t count, int64_t column, int64_t columns, float* c) {
  bool accumulate = false;
  for (const auto& [rows, panels] : sum.products) {
    // A sum of no rows still has to be zero.
    for (int64_t k = 0; k < std::max<int64_t>(panels->depth(), 1); k += kDepth) {
      kernels().multiply({rows->at(row, k), rows->pitch(), count,
                          std::min(kDepth, panels->depth() - k), panels->at(column, k), columns, c,
                          accumulate});
      accumulate = true;
    }
  }
}

// As many tasks as the shape alone says, so that no sum depends on the number of threads.
void add_tasks(const Sum& sum, Tasks& tasks) {
  int64_t depth = 1;
  for (const Factors& product : sum.products) {
    depth = std::max(depth, product.panels->depth());
  }
  const int64_t height =
      std::clamp(kRowNumbers / depth / kFewestRows * kFewestRows, kFewestRows, kMostRows);
  for (int64_t row = 0; row < sum.rows; row += height) {
    for (int64_t begin = 0; begin < sum.columns; begin += kWidth) {
      tasks.push_back([&sum, row, begin, height] {
        const int64_t count = std::min(height, sum.rows - row);
        const int64_t end = std::min(begin + kWidth, sum.columns);
        float* c = thread_scratch(height * kBFloat16Panel);
        for (int64_t column = begin; column < end; column += kBFloat16Panel) {
          const int64_t columns = std::min(kBFloat16Panel, end - column);
          add_up(sum, row, count, column, columns, c);
          sum.finish({c, kBFloat16Panel, row, column, count, columns});
        }
      });
    }
  }
}

void run(const std::vector<Sum>& sums) {
  Tasks tasks;
  for (const Sum& sum : sums) {
    add_tasks(sum, tasks);
  }
  run(tasks);
}

// Writes pieces of an (M, columns) array.
std::function<void(const LinearKernels::Tile&)> writer(void* to, Dtype dtype, int64_t columns) {
  return [to, dtype, columns](const LinearKernels::Tile& t) {
    for (int64_t i = 0; i < t.rows; ++i) {
      linear().write(t.data + i * t.ld, dtype, t.columns, to, (t.row + i) * columns + t.column);
    }
  };
}

}  // namespace

const BFloat16Kernels* bfloat16_kernels_in_use() {
#ifdef MLX_ESM_KERNELS_X86
  if (target() == Target::avx512_bf16) {
    return &avx512_bf16::bfloat16_kernels;
  }
  if (target() == Target::avx512_amx) {
    return &avx512_amx::bfloat16_kernels;
  }
#endif
#ifdef MLX_ESM_KERNELS_ARM64_LINUX
  if (target() == Target::neon_bf16) {
    return &neon_bf16::bfloat16_kernels;
  }
#endif
  return nullptr;
}

bool multiplies(Dtype dtype) {
  return dtype == Dtype::bfloat16 && bfloat16_kernels_in_use() != nullptr;
}

void bfloat16_forward(const LinearForward* layers, int count) {
  Tasks tasks;
  const Rows x(layers[0].x, tasks);
  std::vector<Panels> weights;
  weights.reserve(count);
  std::vector<Sum> sums;
  for (int i = 0; i < count; ++i) {
    const LinearForward& f = layers[i];
    weights.emplace_back(transposed(f.weight), f.weight_dtype, tasks);
    sums.push_back(
        {f.x.rows, f.weight.rows, {{&x, &weights[i]}}, [&f](const LinearKernels::Tile& t) {
           linear().finish(f, t);
         }});
  }
  run(tasks);
  run(sums);
}

void bfloat16_backward(const LinearBackward* layers, int count) {
  const LinearBackward& first = layers[0];
  const int64_t M = first.x.rows, K = first.x.columns;
  std::vector<Scratch<char>> buffers(count);
  std::vector<Matrix> dh;
  for (int i = 0; i < count; ++i) {
    dh.push_back(start_backward(layers[i], first.dtype, buffers[i]));
  }
  Tasks tasks;
  std::vector<Rows> rows;
  std::vector<Panels> panels;
  rows.reserve(2 * count);
  panels.reserve(count + 1);
  std::vector<Sum> sums;
  if (first.dx != nullptr) {
    Sum dx{M, K, {}, writer(first.dx, first.dtype, K)};
    for (int i = 0; i < count; ++i) {
      rows.emplace_back(dh[i], tasks);
      panels.emplace_back(layers[i].weight, layers[i].weight_dtype, tasks);
      dx.products.push_back({&rows.back(), &panels.back()});
    }
    sums.push_back(std::move(dx));
  }
  if (first.dweight != nullptr) {
    panels.emplace_back(first.x, first.dtype, tasks);
    for (int i = 0; i < count; ++i) {
      rows.emplace_back(transposed(dh[i]), tasks);
      const int64_t N = layers[i].weight.rows;
      sums.push_back({N,
                      K,
                      {{&rows.back(), &panels.back()}},
                      writer(layers[i].dweight, layers[i].weight_dtype, K)});
    }
  }
  run(tasks);
  run(sums);
}

}  // namespace mlx_esm_kernels::cpu
