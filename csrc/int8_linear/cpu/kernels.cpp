// Compiled once per instruction set, with CPU_TARGET naming its namespace. See int8_linear.md.
#include "int8_linear/cpu/kernels.h"

#include "cpu/rows.h"
#include "int8_linear/cpu/products.h"

#if defined(__AMX_INT8__)
#include "cpu/amx.h"
#elif defined(__ARM_FEATURE_MATMUL_INT8)
#include "cpu/mmla.h"
#endif

namespace mlx_esm_kernels::cpu::CPU_TARGET {

namespace {

constexpr uint32_t kInfinity = 0x7f800000u;  // the bits from which on a magnitude is not finite
constexpr float kSmallest = 0x1p-100f;       // below it 127 / largest may be infinite

typedef uint8_t vbyte __attribute__((vector_size(kLanes)));

// The bits of the largest magnitude of a row: NaN counts as more than infinity.
template <class T>
uint32_t largest_bits(const T* row, int64_t n) {
  vuint largest = {};
  for_each_vector(n, [&](int64_t i, int count) {
    const vuint bits = (vuint)abs(load_some(row + i, count));
    largest = bits > largest ? bits : largest;
  });
  uint32_t found = 0;
  for (int lane = 0; lane < kLanes; ++lane) {
    found = largest[lane] > found ? largest[lane] : found;
  }
  return found;
}

template <class T>
void quantise_row(const T* row, int64_t n, int64_t pitch, uint8_t* to, float* scale) {
  const uint32_t bits = largest_bits(row, n);
  float largest;
  __builtin_memcpy(&largest, &bits, sizeof largest);
  if (bits >= kInfinity || largest < kSmallest) {
    *scale = bits >= kInfinity ? __builtin_nanf("") : 0.0f;
    __builtin_memset(to, kZero, pitch);
    return;
  }
  *scale = largest / 127.0f;
  const float units = 127.0f / largest;
  for_each_vector(n, [&](int64_t i, int count) {
    const vint q = nearest(load_some(row + i, count) * units) + kZero;
    const vbyte bytes = __builtin_convertvector(q, vbyte);
    __builtin_memcpy(to + i, &bytes, count);
  });
  __builtin_memset(to + n, kZero, pitch - n);
}

void quantise(const Matrix& x, Dtype dtype, int64_t begin, int64_t end, const QuantisedRows& to,
              float* row) {
  with_type(dtype, [&]<class T>(T) {
    for (int64_t i = begin; i < end; ++i) {
      uint8_t* bytes = to.bytes + i * to.pitch;
      if (x.column_stride == 1) {
        quantise_row(row_of<T>(x, i), x.columns, to.pitch, bytes, to.scales + i);
      } else {
        read_row(row_of<T>(x, i), x.column_stride, x.columns, row);
        quantise_row(row, x.columns, to.pitch, bytes, to.scales + i);
      }
    }
  });
}

void pack(const int8_t* weight, int64_t columns, int64_t K, int64_t depth,
          const Int8PackedPanel& to) {
  const int64_t steps = K / kInt8Step, rest = K % kInt8Step;
  __builtin_memset(to.bytes + steps * kInt8Panel * kInt8Step, 0,
                   (depth - steps * kInt8Step) * kInt8Panel);
  for (int64_t column = 0; column < kInt8Panel; ++column) {
    const int8_t* from = weight + column * K;
    int8_t* at = to.bytes + column * kInt8Step;
    const bool filled = column < columns;
    for (int64_t step = 0; step < steps; ++step, at += kInt8Panel * kInt8Step) {
      int8_t bytes[kInt8Step] = {};
      if (filled) {
        __builtin_memcpy(bytes, from + step * kInt8Step, sizeof bytes);
      }
      __builtin_memcpy(at, bytes, sizeof bytes);
    }
    if (filled && rest > 0) {
      __builtin_memcpy(at, from + steps * kInt8Step, rest);
    }
    int32_t sum = 0;
    for (int64_t k = 0; filled && k < K; ++k) {
      sum += from[k];
    }
    to.surplus[column] = kZero * sum;
  }
}

// Sums of a row's products with kLanes columns, in units of both.
inline vfloat in_units(vint sums, const Int8PackedPanel& panel, int64_t column, float scale,
                       const float* scales) {
  const vint exact = sums - load_bytes(panel.surplus + column);
  return __builtin_convertvector(exact, vfloat) * scale * load(scales + column);
}

#if defined(__AMX_INT8__) || defined(__ARM_FEATURE_MATMUL_INT8)

#if defined(__AMX_INT8__)
constexpr int64_t kDepth = kAmxRowBytes;

MLX_ESM_KERNELS_TILE_PRODUCTS(MultiplyBytes, _tile_dpbusd)

void add_up(const PackedProduct& p) {
  static_assert(kInt8Step == 4);
  multiply_with_amx<MultiplyBytes>(p);
}
#else
constexpr int64_t kDepth = kInt8Step;

void add_up(const PackedProduct& p) {
  static_assert(kInt8Step == kMmlaBytes);
  multiply_with_mmla<vint>(p);
}
#endif

// The sums lie where the products in float32 will.
void multiply_all(const QuantisedRows& x, int64_t rows, const Int8PackedPanel& panel,
                  const float* scales, int64_t columns, float* to) {
  static_assert(kInt8Panel == kPackedColumns);
  add_up({x.bytes, x.pitch, rows, x.pitch, panel.bytes, columns, to, false});
  for (int64_t r = 0; r < rows; ++r) {
    for (int64_t column = 0; column < columns; column += kLanes) {
      float* at = to + r * kInt8Panel + column;
      store(at, in_units(load_bytes(at), panel, column, x.scales[r], scales));
    }
  }
}

#else

constexpr int64_t kDepth = kInt8Step;

// A tile of the result lives in accumulators, as in cpu/matrix.h.
template <int Rows>
void multiply_tile(const QuantisedRows& x, const Int8PackedPanel& panel, const float* scales,
                   int64_t column, float* to) {
  vint sums[Rows][kInt8Vectors] = {};
  const uint8_t* element = x.bytes;
  const int8_t* bytes = panel.bytes + column * kInt8Step;
  for (int64_t k = 0; k < x.pitch; k += kInt8Step, element += kInt8Step) {
    vint loaded[kInt8Vectors];
#pragma GCC unroll 4
    for (int v = 0; v < kInt8Vectors; ++v) {
      loaded[v] = load_bytes(bytes + v * kLanes * kInt8Step);
    }
#pragma GCC unroll 6
    for (int r = 0; r < Rows; ++r) {
      const BytesOfX four(load_four(element + r * x.pitch));
#pragma GCC unroll 4
      for (int v = 0; v < kInt8Vectors; ++v) {
        sums[r][v] = add_products(sums[r][v], four, BytesOfWeight(loaded[v]));
      }
    }
    bytes += kInt8Panel * kInt8Step;
  }
#pragma GCC unroll 6
  for (int r = 0; r < Rows; ++r) {
#pragma GCC unroll 4
    for (int v = 0; v < kInt8Vectors; ++v) {
      const int64_t at = column + v * kLanes;
      store(to + r * kInt8Panel + at, in_units(sums[r][v], panel, at, x.scales[r], scales));
    }
  }
}

// The tile of `rows` rows, one of 1 ... Rows.
template <int Rows>
void multiply_rows(const QuantisedRows& x, int64_t rows, const Int8PackedPanel& panel,
                   const float* scales, int64_t columns, float* to) {
  if constexpr (Rows > 1) {
    if (rows < Rows) {
      return multiply_rows<Rows - 1>(x, rows, panel, scales, columns, to);
    }
  }
  for (int64_t column = 0; column < columns; column += kInt8Vectors * kLanes) {
    multiply_tile<Rows>(x, panel, scales, column, to);
  }
}

void multiply_all(const QuantisedRows& x, int64_t rows, const Int8PackedPanel& panel,
                  const float* scales, int64_t columns, float* to) {
  const int64_t tiles = (rows + kInt8Rows - 1) / kInt8Rows;
  for (int64_t t = 0, i = 0; t < tiles; ++t) {
    const int64_t count = rows / tiles + (t < rows % tiles ? 1 : 0);
    const QuantisedRows from{x.bytes + i * x.pitch, x.pitch, x.scales + i};
    multiply_rows<kInt8Rows>(from, count, panel, scales, columns, to + i * kInt8Panel);
    i += count;
  }
}

#endif

void multiply(const QuantisedRows& x, int64_t rows, const Int8PackedPanel& panel,
              const float* scales, int64_t columns, float* to) {
  float padded[kInt8Panel] = {};
  __builtin_memcpy(padded, scales, columns * sizeof(float));
  multiply_all(x, rows, panel, padded, columns, to);
}

}  // namespace

const Int8LinearKernels int8_linear_kernels = {kDepth, quantise, pack, multiply};

}  // namespace mlx_esm_kernels::cpu::CPU_TARGET
