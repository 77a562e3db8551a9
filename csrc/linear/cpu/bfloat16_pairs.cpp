// Two bfloat16 of a sum lie where one float32 would: a panel is [depth / 2][kBFloat16Panel][2].
// Compiled once per instruction set that multiplies such pairs, with CPU_TARGET naming its
// namespace.
#include "cpu/matrix.h"
#include "linear/cpu/bfloat16_rows.h"

#if defined(__AMX_BF16__)
#include "cpu/amx.h"
#endif

namespace mlx_esm_kernels::cpu::CPU_TARGET {

namespace {

inline void store_pairs(uint16_t* p, vfloat v) {
  __builtin_memcpy(p, &v, sizeof v);
}

// Of a matrix whose columns are contiguous: a panel's columns are rows of pairs, to be transposed.
void pack_columns(const Matrix& b, int64_t column, int64_t columns, int64_t depth,
                  uint16_t* panel) {
  for (int64_t k = 0; k < depth; k += 2 * kLanes) {
    const int64_t steps = at_most((depth - k) / 2, kLanes);
    const int numbers = b.rows <= k ? 0 : at_most(b.rows - k, 2 * kLanes);
    for (int64_t j = 0; j < kBFloat16Panel; j += kLanes) {
      vfloat block[kLanes];
#pragma GCC unroll 16
      for (int lane = 0; lane < kLanes; ++lane) {
        block[lane] = j + lane < columns && numbers > 0
                          ? adjacent_pairs(at(b, k, column + j + lane), numbers)
                          : vfloat{};
      }
      transpose(block);
      for (int64_t step = 0; step < steps; ++step) {
        store_pairs(panel + k * kBFloat16Panel + 2 * (step * kBFloat16Panel + j), block[step]);
      }
    }
  }
}

// Of a matrix whose rows are contiguous: two rows are interleaved.
void pack_rows(const Matrix& b, int64_t column, int64_t columns, int64_t depth, uint16_t* panel) {
  for (int64_t k = 0; k < depth; k += 2) {
    uint16_t* to = panel + k * kBFloat16Panel;
    for (int64_t j = 0; j < kBFloat16Panel; j += kLanes) {
      const int count = k < b.rows && j < columns ? at_most(columns - j, kLanes) : 0;
      const vfloat both = count == 0
                              ? vfloat{}
                              : pairs(at(b, k, column + j),
                                      k + 1 < b.rows ? at(b, k + 1, column + j) : nullptr, count);
      store_pairs(to + 2 * j, both);
    }
  }
}

void pack(const Matrix& b, int64_t column, int64_t columns, int64_t depth, uint16_t* panel) {
  if (b.column_stride == 1) {
    return pack_rows(b, column, columns, depth, panel);
  }
  if (b.row_stride == 1) {
    return pack_columns(b, column, columns, depth, panel);
  }
  pack_numbers<2>(b, column, columns, depth, panel);
}

#if defined(__AMX_BF16__)

constexpr int64_t kDepth = kAmxRowBytes / sizeof(uint16_t);

MLX_ESM_KERNELS_TILE_PRODUCTS(MultiplyPairs, _tile_dpbf16ps)

void multiply(const BFloat16Product& p) {
  static_assert(kBFloat16Panel == kPackedColumns);
  multiply_with_amx<MultiplyPairs>(
      {p.rows, p.pitch * 2, p.count, p.depth * 2, p.panel, p.columns, p.c, p.accumulate});
}

#else

constexpr int64_t kDepth = 2;

void multiply(const BFloat16Product& p) {
  const int columns = static_cast<int>((p.columns + kLanes - 1) / kLanes * kLanes);
  const auto nothing = [] {};
  multiply<Left::straight, Element::bfloat16_pair>(
      Product{static_cast<int>(p.count), columns, static_cast<int>(p.depth / 2),
              reinterpret_cast<const float*>(p.rows), p.pitch / 2,
              reinterpret_cast<const float*>(p.panel), kBFloat16Panel, p.c, kBFloat16Panel,
              p.accumulate ? Start::accumulate : Start::zero},
      nothing);
}

#endif

}  // namespace

const BFloat16Kernels bfloat16_kernels = {kDepth, line_up, pack, multiply};

}  // namespace mlx_esm_kernels::cpu::CPU_TARGET
