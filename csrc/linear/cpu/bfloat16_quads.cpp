// Four bfloat16 of a sum lie side by side: a panel is [depth / 4][kBFloat16Panel][4]. Compiled once
// per instruction set that multiplies such fours, with CPU_TARGET naming its namespace.
#include "cpu/mmla.h"
#include "linear/cpu/bfloat16_rows.h"

namespace mlx_esm_kernels::cpu::CPU_TARGET {

namespace {

constexpr int64_t kDepth = 4;
constexpr int64_t kTogether = 8;  // columns that are packed at a time: a line of the cache

// Of a matrix whose columns are contiguous: fours are copied.
void pack_columns(const Matrix& b, int64_t column, int64_t columns, int64_t depth,
                  uint16_t* panel) {
  for (int64_t j = 0; j < kBFloat16Panel; j += kTogether) {
    const int filled = j < columns ? at_most(columns - j, kTogether) : 0;
    for (int64_t k = 0; k < depth; k += kDepth) {
      const int numbers = k < b.rows ? at_most(b.rows - k, kDepth) : 0;
      uint16_t fours[kTogether][kDepth] = {};
      for (int i = 0; i < filled; ++i) {
        if (numbers == kDepth) {
          __builtin_memcpy(fours[i], at(b, k, column + j + i), sizeof fours[i]);
        } else {
          __builtin_memcpy(fours[i], at(b, k, column + j + i), numbers * sizeof(uint16_t));
        }
      }
      __builtin_memcpy(panel + k * kBFloat16Panel + j * kDepth, fours, sizeof fours);
    }
  }
}

// `count` numbers, zeros after them.
inline uint16x8_t load_numbers(const uint16_t* p, int count) {
  if (count == kTogether) {
    return vld1q_u16(p);
  }
  uint16_t buffer[kTogether] = {};
  __builtin_memcpy(buffer, p, count * sizeof *p);
  return vld1q_u16(buffer);
}

// Of a matrix whose rows are contiguous: four rows are interleaved.
void pack_rows(const Matrix& b, int64_t column, int64_t columns, int64_t depth, uint16_t* panel) {
  for (int64_t k = 0; k < depth; k += kDepth) {
    for (int64_t j = 0; j < kBFloat16Panel; j += kTogether) {
      const int count = j < columns ? at_most(columns - j, kTogether) : 0;
      uint16x8x4_t rows;
      for (int i = 0; i < kDepth; ++i) {
        const bool there = k + i < b.rows && count > 0;
        rows.val[i] = there ? load_numbers(at(b, k + i, column + j), count) : vdupq_n_u16(0);
      }
      vst4q_u16(panel + k * kBFloat16Panel + j * kDepth, rows);
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
  pack_numbers<kDepth>(b, column, columns, depth, panel);
}

void multiply(const BFloat16Product& p) {
  static_assert(kDepth * sizeof(uint16_t) == kMmlaBytes && kBFloat16Panel == kPackedColumns);
  multiply_with_mmla<vfloat>(
      {p.rows, p.pitch * 2, p.count, p.depth * 2, p.panel, p.columns, p.c, p.accumulate});
}

}  // namespace

const BFloat16Kernels bfloat16_kernels = {kDepth, line_up, pack, multiply};

}  // namespace mlx_esm_kernels::cpu::CPU_TARGET
