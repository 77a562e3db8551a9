// The part of the Metal shading language that the kernels use, in C++ for OpenCL, where address
// spaces are part of the types. What is not here does not compile.
#pragma once
#pragma OPENCL EXTENSION cl_khr_fp16 : enable

#include "../runtime/abi.h"

#define device __global
#define constant __constant
#define threadgroup __local
#define thread __private
#define INFINITY __builtin_inff()
#define NAN __builtin_nanf("")

typedef unsigned char uchar;
typedef unsigned short ushort;
typedef unsigned int uint;
typedef unsigned long ulong;
typedef int int32_t;
typedef unsigned int uint32_t;
typedef long int64_t;
typedef unsigned long uint64_t;
typedef __bf16 bfloat;

template <typename T, int N>
using vec = T __attribute__((ext_vector_type(N)));

#define EMU_VECTORS(T)    \
  typedef vec<T, 2> T##2; \
  typedef vec<T, 3> T##3; \
  typedef vec<T, 4> T##4;
EMU_VECTORS(float)
EMU_VECTORS(half)
EMU_VECTORS(bfloat)
EMU_VECTORS(int)
EMU_VECTORS(uint)
EMU_VECTORS(ushort)
EMU_VECTORS(long)

namespace metal {
using ::vec;
}

// ---- Constructors of vectors: the translator writes V(...) as emu_make<V>(...)
// --------------------

template <typename V>
struct emu_vector;
template <typename T, int N>
struct emu_vector<T __attribute__((ext_vector_type(N)))> {
  typedef T element;
  static constexpr int size = N;
};
template <typename V, typename T>
struct emu_maker {
  static V make(T x) {
    return (V)((typename emu_vector<V>::element)x);
  }
};
template <typename V, typename T, int N>
struct emu_maker<V, T __attribute__((ext_vector_type(N)))> {
  static V make(vec<T, N> x) {
    return __builtin_convertvector(x, V);
  }
};
template <typename V, typename T>
V emu_make(T x) {
  return emu_maker<V, T>::make(x);
}
template <typename V>
V emu_make(typename emu_vector<V>::element x, typename emu_vector<V>::element y) {
  V v;
  v[0] = x;
  v[1] = y;
  return v;
}
template <typename V>
V emu_make(typename emu_vector<V>::element x, typename emu_vector<V>::element y,
           typename emu_vector<V>::element z, typename emu_vector<V>::element w) {
  V v;
  v[0] = x;
  v[1] = y;
  v[2] = z;
  v[3] = w;
  return v;
}

// ---- Mathematics
// ----------------------------------------------------------------------------------

#define EMU_MIN_MAX(T)     \
  inline T min(T a, T b) { \
    return b < a ? b : a;  \
  }                        \
  inline T max(T a, T b) { \
    return a < b ? b : a;  \
  }
EMU_MIN_MAX(int)
EMU_MIN_MAX(uint)
EMU_MIN_MAX(long)
EMU_MIN_MAX(float)

EMU_EXTERN float exp2f(float);
EMU_EXTERN float log2f(float);
inline float exp2(float x) {
  return exp2f(x);
}
inline float log2(float x) {
  return log2f(x);
}
inline uint ctz(uint x) {
  return x == 0 ? 32u : (uint)__builtin_ctz(x);
}

// ---- Simdgroups
// -----------------------------------------------------------------------------------

enum class mem_flags : uint { mem_none = 0, mem_device = 1, mem_threadgroup = 2 };
inline void threadgroup_barrier_at(mem_flags flags, uint line) {
  emu_barrier(emu_scope_threadgroup, (uint)flags, line);
}
inline void simdgroup_barrier_at(mem_flags flags, uint line) {
  emu_barrier(emu_scope_simdgroup, (uint)flags, line);
}
#define threadgroup_barrier(flags) threadgroup_barrier_at(flags, __LINE__)
#define simdgroup_barrier(flags) simdgroup_barrier_at(flags, __LINE__)

template <typename T>
T emu_shuffle_xor(T x, ushort mask, uint line) {
  T all[32];
  emu_u32 active = emu_gather(&x, sizeof(T), all, "simd_shuffle_xor", line);
  uint from = emu_builtin(emu_thread_index_in_simdgroup, 0) ^ mask;
  if (!(active >> from & 1)) {
    emu_fault("simd_shuffle_xor reads a lane that does not take part", line);
  }
  return all[from];
}
inline uint emu_simd_or(uint x, uint line) {
  uint all[32];
  emu_u32 active = emu_gather(&x, sizeof(uint), all, "simd_or", line);
  uint result = 0;
  for (int i = 0; i < 32; ++i) {
    result |= active >> i & 1 ? all[i] : 0u;
  }
  return result;
}
#define simd_shuffle_xor(x, mask) emu_shuffle_xor(x, mask, __LINE__)
#define simd_or(x) emu_simd_or(x, __LINE__)

// ---- 8 x 8 matrices
// -------------------------------------------------------------------------------

template <typename T, int R, int C>
struct simdgroup_matrix {
  vec<T, 2> elements;
  thread vec<T, 2>& thread_elements() thread {
    return elements;
  }
};
inline void emu_matrix_product(thread simdgroup_matrix<float, 8, 8>& d,
                               thread simdgroup_matrix<float, 8, 8>& a,
                               thread simdgroup_matrix<float, 8, 8>& b,
                               thread simdgroup_matrix<float, 8, 8>& c, uint line) {
  float x[6] = {a.elements[0], a.elements[1], b.elements[0],
                b.elements[1], c.elements[0], c.elements[1]};
  float out[2];
  emu_multiply_accumulate(out, x, x + 2, x + 4, line);
  d.elements[0] = out[0];
  d.elements[1] = out[1];
}
#define simdgroup_multiply_accumulate(d, a, b, c) emu_matrix_product(d, a, b, c, __LINE__)
