// Two bfloat16 of a sum lie where one float32 would: a panel is [depth / 2][kBFloat16Panel][2].
// Compiled once per instruction set that multiplies such pairs, with CPU_TARGET naming its
// namespace.
#include "cpu/matrix.h"
#include "cpu/transpose.h"
#include "linear/cpu/bfloat16_kernels.h"

#if defined(__AMX_BF16__)
#include "cpu/amx.h"
#endif

namespace mlx_esm_kernels::cpu::CPU_TARGET {

namespace {

inline int at_most(int64_t n, int limit) {
  return static_cast<int>(n < limit ? n : limit);
}

inline vuint load_some_bits(const uint16_t* p, int count) {
  if (count == kLanes) {
    return __builtin_convertvector(load_bits(p), vuint);
  }
  uint16_t buffer[kLanes] = {};
  __builtin_memcpy(buffer, p, count * sizeof *p);
  return __builtin_convertvector(load_bits(buffer), vuint);
}

// The pairs of `count` numbers at `first` and those at `second`, which may be none.
inline vfloat pairs(const uint16_t* first, const uint16_t* second, int count) {
  vuint both = load_some_bits(first, count);
  if (second != nullptr) {
    both |= load_some_bits(second, count) << 16;
  }
  return (vfloat)both;
}

// Pairs that lie side by side: `count` numbers, the last of which may have no other.
inline vfloat adjacent_pairs(const uint16_t* p, int count) {
  uint16_t buffer[2 * kLanes] = {};
  __builtin_memcpy(buffer, p, count * sizeof *p);
  vfloat v;
  __builtin_memcpy(&v, buffer, sizeof v);
  return v;
}

inline void store_pairs(uint16_t* p, vfloat v) {
  __builtin_memcpy(p, &v, sizeof v);
}

// Where a matrix has its number at [row, column].
inline const uint16_t* at(const Matrix& a, int64_t row, int64_t column) {
  return static_cast<const uint16_t*>(a.data) + row * a.row_stride + column * a.column_stride;
}

void line_up_rows(const Matrix& a, int64_t begin, int64_t end, uint16_t* to, int64_t pitch) {
  for (int64_t i = begin; i < end; ++i) {
    uint16_t* row = to + i * pitch;
    if (a.column_stride == 1) {
      __builtin_memcpy(row, at(a, i, 0), a.columns * sizeof *row);
    } else {
      for (int64_t k = 0; k < a.columns; ++k) {
        row[k] = *at(a, i, k);
      }
    }
    __builtin_memset(row + a.columns, 0, (pitch - a.columns) * sizeof *row);
  }
}

// Of a matrix whose columns are contiguous, kLanes rows and as many pairs of columns at a time.
void line_up_columns(const Matrix& a, int64_t begin, int64_t end, uint16_t* to, int64_t pitch) {
  for (int64_t i = begin; i < end; i += kLanes) {
    const int rows = at_most(end - i, kLanes);
    for (int64_t k = 0; k < pitch; k += 2 * kLanes) {
      vfloat block[kLanes];
      for (int lane = 0; lane < kLanes; ++lane) {
        const int64_t column = k + 2 * lane;
        block[lane] = column >= a.columns
                          ? vfloat{}
                          : pairs(at(a, i, column),
                                  column + 1 < a.columns ? at(a, i, column + 1) : nullptr, rows);
      }
      transpose(block);
      const int64_t bytes = at_most(pitch - k, 2 * kLanes) * sizeof(uint16_t);
      for (int r = 0; r < rows; ++r) {
        __builtin_memcpy(to + (i + r) * pitch + k, &block[r], bytes);
      }
    }
  }
}

void line_up(const Matrix& a, int64_t begin, int64_t end, uint16_t* to, int64_t pitch) {
  const bool columns = a.row_stride == 1 && a.column_stride != 1;
  (columns ? line_up_columns : line_up_rows)(a, begin, end, to, pitch);
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
  for (int64_t k = 0; k < depth; ++k) {
    for (int64_t j = 0; j < kBFloat16Panel; ++j) {
      panel[(k / 2 * kBFloat16Panel + j) * 2 + k % 2] =
          k < b.rows && j < columns ? *at(b, k, column + j) : uint16_t{0};
    }
  }
}

#if defined(__AMX_BF16__)

constexpr int64_t kDepth = kAmxRowBytes / sizeof(uint16_t);

struct MultiplyPairs {
  template <int tile>
  static void add() {
    if constexpr (tile == 0) {
      _tile_dpbf16ps(0, 4, 6);
    } else if constexpr (tile == 1) {
      _tile_dpbf16ps(1, 4, 7);
    } else if constexpr (tile == 2) {
      _tile_dpbf16ps(2, 5, 6);
    } else {
      _tile_dpbf16ps(3, 5, 7);
    }
  }
};

void multiply(const BFloat16Product& p) {
  static_assert(kBFloat16Panel * sizeof(float) == kAmxPitch);
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
