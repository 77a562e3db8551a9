#include "int8_linear/cpu/compute.h"

#include <algorithm>
#include <vector>

#include "ceil_div.h"
#include "cpu/scratch.h"
#include "cpu/threads.h"
#include "int8_linear/cpu/kernels.h"
#include "linear/cpu/kernels.h"

namespace mlx_esm_kernels::cpu {

namespace {

constexpr int64_t kRows = 192;         // rows of x that one task multiplies
constexpr int64_t kPanels = 16;        // by so many panels of a weight
constexpr int64_t kFinishRows = 48;    // whose products are in cache when they are finished
constexpr int64_t kQuantiseRows = 64;  // rows that one task quantises

const Int8LinearKernels& kernels() {
#ifdef MLX_ESM_KERNELS_X86
  if (target() == Target::avx512_vnni || target() == Target::avx512_bf16) {
    return avx512_vnni::int8_linear_kernels;
  }
  if (target() == Target::avx512_amx) {
    return avx512_amx::int8_linear_kernels;
  }
#endif
#ifdef MLX_ESM_KERNELS_ARM64_LINUX
  if (target() == Target::neon_dotprod) {
    return neon_dotprod::int8_linear_kernels;
  }
  if (target() == Target::neon_bf16) {
    return neon_bf16::int8_linear_kernels;
  }
#endif
  return MLX_ESM_KERNELS_IN_USE(int8_linear_kernels);
}

// The panels of all layers, one after the other.
class Panels {
 public:
  Panels(const Int8LinearForward* layers, int count, int64_t depth)
      : layers_(layers), depth_(depth), size_(depth * kInt8Panel) {
    for (int i = 0; i < count; ++i) {
      first_.push_back(total_);
      total_ += ceil_div(layers[i].layer.weight.rows, kInt8Panel);
    }
    bytes_.resize(total_ * size_);
    surplus_.resize(total_ * kInt8Panel);
  }

  int64_t total() const {
    return total_;
  }

  Int8PackedPanel of(int64_t layer, int64_t panel) const {
    const int64_t i = first_[layer] + panel;
    return {bytes_.data() + i * size_, surplus_.data() + i * kInt8Panel};
  }

  void pack(int64_t i) const {
    const int64_t layer = std::upper_bound(first_.begin(), first_.end(), i) - first_.begin() - 1;
    const int64_t panel = i - first_[layer];
    const Matrix& w = layers_[layer].layer.weight;
    kernels().pack(static_cast<const int8_t*>(w.data) + panel * kInt8Panel * w.columns,
                   std::min(kInt8Panel, w.rows - panel * kInt8Panel), w.columns, depth_,
                   of(layer, panel));
  }

 private:
  const Int8LinearForward* layers_;
  int64_t depth_, size_, total_ = 0;
  std::vector<int64_t> first_;
  Scratch<int8_t> bytes_;
  Scratch<int32_t> surplus_;
};

struct Task {
  int64_t layer, row, rows, panel, panels;
};

// Tasks of the same rows follow one another.
std::vector<Task> tasks_of(const Int8LinearForward* layers, int count) {
  std::vector<Task> tasks;
  const int64_t M = layers[0].layer.x.rows;
  for (int64_t row = 0; row < M; row += kRows) {
    for (int64_t layer = 0; layer < count; ++layer) {
      const int64_t panels = ceil_div(layers[layer].layer.weight.rows, kInt8Panel);
      for (int64_t panel = 0; panel < panels; panel += kPanels) {
        tasks.push_back(
            {layer, row, std::min(kRows, M - row), panel, std::min(kPanels, panels - panel)});
      }
    }
  }
  return tasks;
}

void multiply(const Int8LinearForward& f, const QuantisedRows& x, const Panels& panels,
              const Task& t) {
  const LinearKernels& linear = MLX_ESM_KERNELS_IN_USE(linear_kernels);
  float* products = thread_scratch(kFinishRows * kInt8Panel);
  for (int64_t panel = t.panel; panel < t.panel + t.panels; ++panel) {
    const int64_t column = panel * kInt8Panel;
    const int64_t columns = std::min(kInt8Panel, f.layer.weight.rows - column);
    for (int64_t row = t.row; row < t.row + t.rows; row += kFinishRows) {
      const int64_t rows = std::min(kFinishRows, t.row + t.rows - row);
      const QuantisedRows from{x.bytes + row * x.pitch, x.pitch, x.scales + row};
      kernels().multiply(from, rows, panels.of(t.layer, panel), f.scales + column, columns,
                         products);
      linear.finish(f.layer, {products, kInt8Panel, row, column, rows, columns});
    }
  }
}

}  // namespace

void int8_linear_forward(const Int8LinearForward* layers, int count) {
  const Matrix& x = layers[0].layer.x;
  const int64_t pitch = ceil_div(x.columns, kernels().depth) * kernels().depth;
  const Scratch<uint8_t> bytes(x.rows * pitch);
  const Scratch<float> scales(x.rows);
  const QuantisedRows quantised{bytes.data(), pitch, scales.data()};
  const Panels panels(layers, count, pitch);
  parallel_for(panels.total() + ceil_div(x.rows, kQuantiseRows), [&](int64_t i) {
    if (i < panels.total()) {
      panels.pack(i);
      return;
    }
    const int64_t begin = (i - panels.total()) * kQuantiseRows;
    kernels().quantise(x, layers[0].layer.dtype, begin, std::min(begin + kQuantiseRows, x.rows),
                       quantised, thread_scratch(x.columns));
  });
  const std::vector<Task> tasks = tasks_of(layers, count);
  parallel_for(static_cast<int64_t>(tasks.size()),
               [&](int64_t i) { multiply(layers[tasks[i].layer], quantised, panels, tasks[i]); });
}

}  // namespace mlx_esm_kernels::cpu
