// Portable vectors of floats on compiler vector types, one width per instruction set.
//
// This header is compiled once per instruction set, into the namespace CPU_TARGET. It must not
// include any C++ library header: an inline function of the library compiled here for AVX2 could be
// the copy that the linker keeps for everybody.
#pragma once

#ifndef CPU_TARGET
#error "compile this header with CPU_TARGET set to the name of an instruction set"
#endif

#include <stddef.h>
#include <stdint.h>

#if defined(__x86_64__)
#include <immintrin.h>
#elif defined(__aarch64__)
#include <arm_neon.h>
#endif

#include "cpu/target.h"

namespace mlx_esm_kernels::cpu::CPU_TARGET {

#if defined(__AVX512F__)
constexpr int kLanes = 16;
#elif defined(__AVX2__)
constexpr int kLanes = 8;
#else
constexpr int kLanes = 4;  // SSE2 and NEON
#endif

typedef float vfloat __attribute__((vector_size(kLanes * 4)));
typedef int32_t vint __attribute__((vector_size(kLanes * 4)));
typedef uint32_t vuint __attribute__((vector_size(kLanes * 4)));
typedef uint16_t vhalf __attribute__((vector_size(kLanes * 2)));

inline vfloat load(const float* p) {
  vfloat v;
  __builtin_memcpy(&v, p, sizeof v);
  return v;
}

inline void store(float* p, vfloat v) {
  __builtin_memcpy(p, &v, sizeof v);
}

inline vfloat broadcast(float x) {
  vfloat v = {};
  for (int i = 0; i < kLanes; ++i) {
    v[i] = x;
  }
  return v;
}

// Both keep a NaN in `a`: a comparison with NaN is false. x86 has this as one instruction, which
// compilers do not see in the comparison of vectors.
#if defined(__AVX512F__)
inline vfloat max(vfloat a, vfloat b) {
  return (vfloat)_mm512_mask_max_ps((__m512)a, 0xffff, (__m512)b, (__m512)a);
}
inline vfloat min(vfloat a, vfloat b) {
  return (vfloat)_mm512_mask_min_ps((__m512)a, 0xffff, (__m512)b, (__m512)a);
}
#elif defined(__AVX2__)
inline vfloat max(vfloat a, vfloat b) {
  return (vfloat)_mm256_max_ps((__m256)b, (__m256)a);
}
inline vfloat min(vfloat a, vfloat b) {
  return (vfloat)_mm256_min_ps((__m256)b, (__m256)a);
}
#elif defined(__x86_64__)
inline vfloat max(vfloat a, vfloat b) {
  return (vfloat)_mm_max_ps((__m128)b, (__m128)a);
}
inline vfloat min(vfloat a, vfloat b) {
  return (vfloat)_mm_min_ps((__m128)b, (__m128)a);
}
#else
inline vfloat max(vfloat a, vfloat b) {
  return a < b ? b : a;
}
inline vfloat min(vfloat a, vfloat b) {
  return a > b ? b : a;
}
#endif

// 1 / d of a normal d, to 1.5 ulp.
inline vfloat reciprocal(vfloat d) {
#if defined(__AVX512F__)
  // A division keeps the divider busy for the time of some thirty multiplications.
  const vfloat r = (vfloat)_mm512_maskz_rcp14_ps(0xffff, (__m512)d);
  return r * (2.0f - d * r);
#else
  return 1.0f / d;
#endif
}

inline vfloat abs(vfloat a) {
  return (vfloat)((vuint)a & 0x7fffffffu);
}

// 2^x; infinity from 128 on. Below -126 it is 2^-126: zero for every purpose here, and no denormal,
// which would slow the sums that follow. NaN stays NaN. Relative error below 1.5 ulp. x = n + f
// with a whole n; 2^f is a minimax fit with 2^0 = 1, relative error 2.0e-9.
[[gnu::always_inline]] inline vfloat exp2(vfloat x) {
  x = max(x, broadcast(-126.0f));
#if defined(__AVX512F__)
  // n is the floor of x, as vscalef takes it; f is in [0, 1).
  constexpr float kFit[] = {0.00021612917771562934f, 0.0012467845808714628f, 0.009675451554358006f,
                            0.055485282093286514f,   0.2402293086051941f,    0.6931470632553101f};
  const vfloat f = (vfloat)_mm512_reduce_ps((__m512)x, _MM_FROUND_TO_NEG_INF);
#else
  // n is the integer nearest to x; f is in [-1/2, 1/2].
  constexpr float kFit[] = {0.00015345810970757157f, 0.0013399930903688073f, 0.009618489071726799f,
                            0.05550328642129898f,    0.24022646248340607f,   0.6931471824645996f};
  x = min(x, broadcast(128.0f));                // beyond it the exponent would wrap around
  const vfloat shift = broadcast(12582912.0f);  // 1.5 * 2^23: adding it rounds to an integer
  const vfloat shifted = x + shift;
  const vfloat f = x - (shifted - shift);
#endif
  vfloat p = broadcast(kFit[0]);
#pragma GCC unroll 5
  for (int i = 1; i < 6; ++i) {
    p = p * f + kFit[i];
  }
  p = p * f + 1.0f;
#if defined(__AVX512F__)
  return (vfloat)_mm512_mask_scalef_ps((__m512)p, 0xffff, (__m512)p, (__m512)x);
#else
  // The low bits of `shifted` hold n; moved up by 23 they are the exponent of the result.
  return (vfloat)((vuint)p + ((vuint)shifted << 23));
#endif
}

// The logarithm to base 2 of a positive normal x, or NaN of a NaN; absolute error below 1e-7 where
// the result is in [-1/2, 1/2], elsewhere that of rounding.
// x = 2^n m with m in [sqrt(1/2), sqrt(2)); with t = (m - 1) / (m + 1), ln(m) = 2 artanh(t).
inline vfloat log2(vfloat x) {
  constexpr uint32_t kRootHalf = 0x3f3504f3u;
  const vuint bits = (vuint)x - kRootHalf;
  const vfloat n = __builtin_convertvector((vint)bits >> 23, vfloat);
  const vfloat m = (vfloat)((bits & 0x7fffffu) + kRootHalf);
  const vfloat t = (m - 1.0f) / (m + 1.0f);
  const vfloat square = t * t;
  // 2 / ln(2) / k for k = 9, 7, ..., 1
  vfloat sum = broadcast(0.32059889f);
  sum = sum * square + 0.41219858f;
  sum = sum * square + 0.57707802f;
  sum = sum * square + 0.96179669f;
  sum = sum * square + 2.88539008f;
  return x == x ? sum * t + n : x;
}

constexpr float kLog2E = 1.44269504088896340736f;

// Half-precision formats are stored as their bits.
struct Float16 {
  uint16_t bits;
};

struct BFloat16 {
  uint16_t bits;
};

inline vhalf load_bits(const void* p) {
  vhalf v;
  __builtin_memcpy(&v, p, sizeof v);
  return v;
}

inline vfloat load(const BFloat16* p) {
  return (vfloat)(__builtin_convertvector(load_bits(p), vuint) << 16);
}

#if defined(__AVX512F__)
inline vfloat load(const Float16* p) {
  return (vfloat)_mm512_maskz_cvtph_ps(0xffff, (__m256i)load_bits(p));
}
#else
inline vfloat load(const Float16* p) {
  const vuint h = __builtin_convertvector(load_bits(p), vuint);
  const vuint magnitude = (h & 0x7fffu) << 13;
  // A shifted half is the value times 2^-112, subnormals included.
  const vfloat scaled = (vfloat)magnitude * 0x1p112f;
  const vuint special = (vuint)((vint)magnitude >= 0x0f800000) & 0x7f800000u;
  return (vfloat)((vuint)scaled | special | ((h & 0x8000u) << 16));
}
#endif

inline void store_bits(void* p, vuint bits) {
  const vhalf h = __builtin_convertvector(bits, vhalf);
  __builtin_memcpy(p, &h, sizeof h);
}

// Round to nearest even; a NaN stays a NaN.
#if defined(__AVX512BF16__)
// Here a denormal becomes 0.
inline void store(BFloat16* p, vfloat v) {
  const __m256bh h = _mm512_cvtneps_pbh((__m512)v);
  __builtin_memcpy(p, &h, sizeof h);
}
#else
inline void store(BFloat16* p, vfloat v) {
  const vuint u = (vuint)v;
  const vuint rounded = (u + 0x7fffu + ((u >> 16) & 1u)) >> 16;
  const vuint quiet = (u >> 16) | 0x40u;
  store_bits(p, v == v ? rounded : quiet);
}
#endif

#if defined(__AVX512F__)
inline void store(Float16* p, vfloat v) {
  const vhalf h = (vhalf)_mm512_maskz_cvtps_ph(0xffff, (__m512)v, _MM_FROUND_TO_NEAREST_INT);
  __builtin_memcpy(p, &h, sizeof h);
}
#else
inline void store(Float16* p, vfloat v) {
  const vuint u = (vuint)v;
  const vuint sign = (u >> 16) & 0x8000u;
  const vfloat a = abs(v);
  const vuint normal_bits = ((vuint)a - 0x38000000u + 0xfffu + (((vuint)a >> 13) & 1u)) >> 13;
  // Adding 0.5 leaves the subnormal's bits, correctly rounded, at the bottom of the mantissa.
  const vuint subnormal_bits = (vuint)(a + 0.5f) - 0x3f000000u;
  vuint bits = a < 0x1p-14f ? subnormal_bits : normal_bits;
  bits = a >= 65520.0f ? bits * 0u + 0x7c00u : bits;
  bits = a == a ? bits : bits * 0u + 0x7e00u;
  store_bits(p, bits | sign);
}
#endif

// The first `count` lanes of memory, zeros after them.
template <class T>
inline vfloat load_partial(const T* p, int count) {
  T buffer[kLanes] = {};
  __builtin_memcpy(buffer, p, count * sizeof(T));
  return load(buffer);
}

template <class T>
inline void store_partial(T* p, vfloat v, int count) {
  T buffer[kLanes];
  store(buffer, v);
  __builtin_memcpy(p, buffer, count * sizeof(T));
}

// Calls body(T{}) with the storage type of a dtype.
template <class Body>
inline void with_type(Dtype dtype, Body&& body) {
  switch (dtype) {
    case Dtype::float32:
      return body(float{});
    case Dtype::float16:
      return body(Float16{});
    case Dtype::bfloat16:
      return body(BFloat16{});
  }
}

}  // namespace mlx_esm_kernels::cpu::CPU_TARGET
