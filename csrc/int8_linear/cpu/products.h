// Sums of products of bytes of x and of the weight, exact in 32 bits. Compiled once per instruction
// set.
#pragma once

#include "cpu/vector.h"

namespace mlx_esm_kernels::cpu::CPU_TARGET {

// The byte of x that 0 is stored as: most instructions want one side unsigned, NEON's both signed.
#if defined(__ARM_FEATURE_DOTPROD)
constexpr int kZero = 0;
#else
constexpr int kZero = 128;
#endif

// Numbers of a row that are multiplied at a time.
#if defined(__ARM_FEATURE_MATMUL_INT8)
constexpr int64_t kInt8Step = 8;
#else
constexpr int64_t kInt8Step = 4;
#endif

// Four bytes of each of kLanes rows of the weight, and four bytes of a row of x, for all lanes
// alike. Tiles are as large as leaves registers for both.
inline vint load_bytes(const void* p) {
  vint v;
  __builtin_memcpy(&v, p, sizeof v);
  return v;
}

inline int32_t load_four(const void* p) {
  int32_t four;
  __builtin_memcpy(&four, p, sizeof four);
  return four;
}

#if defined(__AVX512VNNI__)

constexpr int kInt8Rows = 6;
constexpr int kInt8Vectors = 4;

struct BytesOfWeight {
  explicit BytesOfWeight(vint v) : bytes(v) {}
  vint bytes;
};

struct BytesOfX {
  explicit BytesOfX(int32_t four) : bytes(vint{} + four) {}
  vint bytes;
};

inline vint add_products(vint sum, BytesOfX x, BytesOfWeight w) {
  return (vint)_mm512_dpbusd_epi32((__m512i)sum, (__m512i)x.bytes, (__m512i)w.bytes);
}

#elif defined(__ARM_FEATURE_DOTPROD)

constexpr int kInt8Rows = 5;  // with 6 compilers run out of registers
constexpr int kInt8Vectors = 4;

struct BytesOfWeight {
  explicit BytesOfWeight(vint v) : bytes((int8x16_t)v) {}
  int8x16_t bytes;
};

// The instruction takes them from one lane.
struct BytesOfX {
  explicit BytesOfX(int32_t four) : bytes(vcreate_s8(static_cast<uint32_t>(four))) {}
  int8x8_t bytes;
};

inline vint add_products(vint sum, BytesOfX x, BytesOfWeight w) {
  return (vint)vdotq_lane_s32((int32x4_t)sum, w.bytes, x.bytes, 0);
}

#elif defined(__x86_64__)

// Bytes 0 and 2, and 1 and 3, widened to 16 bits, whose products are added in pairs: the
// instruction for pairs of bytes saturates, and would not be exact.
#if defined(__AVX512F__)
constexpr int kInt8Rows = 6;
#else
constexpr int kInt8Rows = 3;
#endif
constexpr int kInt8Vectors = 2;

typedef int16_t vshort __attribute__((vector_size(kLanes * 4)));
typedef uint16_t vushort __attribute__((vector_size(kLanes * 4)));

struct BytesOfWeight {
  explicit BytesOfWeight(vint v) : even((vshort)((vushort)v << 8) >> 8), odd((vshort)v >> 8) {}
  vshort even, odd;
};

struct BytesOfX {
  explicit BytesOfX(int32_t four) {
    const vushort v = (vushort)(vint{} + four);
    even = (vshort)(v & 0xff);
    odd = (vshort)(v >> 8);
  }
  vshort even, odd;
};

inline vint add_pairs(vshort a, vshort b) {
#if defined(__AVX512F__)
  return (vint)_mm512_madd_epi16((__m512i)a, (__m512i)b);
#elif defined(__AVX2__)
  return (vint)_mm256_madd_epi16((__m256i)a, (__m256i)b);
#else
  return (vint)_mm_madd_epi16((__m128i)a, (__m128i)b);
#endif
}

inline vint add_products(vint sum, BytesOfX x, BytesOfWeight w) {
  return sum + add_pairs(x.even, w.even) + add_pairs(x.odd, w.odd);
}

#else

constexpr int kInt8Rows = 4;
constexpr int kInt8Vectors = 2;

struct BytesOfWeight {
  explicit BytesOfWeight(vint v) {
    for (int i = 0; i < 4; ++i) {
      of[i] = (vint)((vuint)v << (24 - 8 * i)) >> 24;
    }
  }
  vint of[4];
};

struct BytesOfX {
  explicit BytesOfX(int32_t four) {
    const vuint v = (vuint)(vint{} + four);
    for (int i = 0; i < 4; ++i) {
      of[i] = (vint)(v >> (8 * i) & 0xffu);
    }
  }
  vint of[4];
};

inline vint add_products(vint sum, BytesOfX x, BytesOfWeight w) {
  for (int i = 0; i < 4; ++i) {
    sum += x.of[i] * w.of[i];
  }
  return sum;
}

#endif

// The nearest integers, even ones of two. By name, not by adding a large number: a compiler may
// contract that with the product before it, and round once where another target rounds twice.
inline vint nearest(vfloat v) {
#if defined(__AVX512F__)
  return (vint)_mm512_maskz_cvtps_epi32(0xffff, (__m512)v);
#elif defined(__AVX2__)
  return (vint)_mm256_cvtps_epi32((__m256)v);
#elif defined(__x86_64__)
  return (vint)_mm_cvtps_epi32((__m128)v);
#elif defined(__aarch64__)
  return (vint)vcvtnq_s32_f32((float32x4_t)v);
#else
  vint n;
  for (int i = 0; i < kLanes; ++i) {
    n[i] = static_cast<int32_t>(__builtin_rintf(v[i]));
  }
  return n;
#endif
}

}  // namespace mlx_esm_kernels::cpu::CPU_TARGET
