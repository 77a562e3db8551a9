// Rows of memory in any dtype, read and written as float32. Compiled once per instruction set.
#pragma once

#include "cpu/strided_rows.h"
#include "cpu/vector.h"

namespace mlx_esm_kernels::cpu::CPU_TARGET {

constexpr int64_t kCacheLine = 64;  // bytes, to ask for ahead

// Calls body(at, count) for whole vectors of a row, then for the rest of it.
template <class Body>
inline void for_each_vector(int64_t n, const Body& body) {
  int64_t i = 0;
  for (; i + kLanes <= n; i += kLanes) {
    body(i, kLanes);
  }
  if (i < n) {
    body(i, static_cast<int>(n - i));
  }
}

template <class T>
inline const T* row_of(const StridedRows& x, int64_t row) {
  return static_cast<const T*>(x.data) + row * x.row_stride;
}

template <class T>
inline vfloat load_some(const T* p, int count) {
  return count == kLanes ? load(p) : load_partial(p, count);
}

template <class T>
inline void store_some(T* p, vfloat v, int count) {
  if (count == kLanes) {
    store(p, v);
  } else {
    store_partial(p, v, count);
  }
}

// n elements, `stride` apart, as float32.
template <class T>
inline void read_row(const T* from, int64_t stride, int64_t n, float* to) {
  if (stride != 1) {
    for (int64_t i = 0; i < n; ++i) {
      to[i] = load_partial(from + i * stride, 1)[0];
    }
    return;
  }
  for_each_vector(
      n, [&](int64_t i, int count) { store_some(to + i, load_some(from + i, count), count); });
}

// n elements, `stride` apart, as they are.
template <class T>
inline void copy_row(const T* from, int64_t stride, int64_t n, void* to) {
  if (stride == 1) {
    __builtin_memcpy(to, from, n * sizeof(T));
    return;
  }
  for (int64_t i = 0; i < n; ++i) {
    __builtin_memcpy(static_cast<char*>(to) + i * sizeof(T), from + i * stride, sizeof(T));
  }
}

template <class T>
inline void write_row(const float* from, int64_t n, T* to) {
  for_each_vector(
      n, [&](int64_t i, int count) { store_some(to + i, load_some(from + i, count), count); });
}

template <class T>
inline void add_row(const T* from, int64_t n, float* to) {
  for_each_vector(n, [&](int64_t i, int count) {
    store_some(to + i, load_some(to + i, count) + load_some(from + i, count), count);
  });
}

template <class T>
inline void clear_row(T* row, int64_t n) {
  __builtin_memset(row, 0, static_cast<size_t>(n) * sizeof(T));
}

inline float sum_of_lanes(vfloat v) {
  float total = 0;
  for (int lane = 0; lane < kLanes; ++lane) {
    total += v[lane];
  }
  return total;
}

// A fixed order of summation: lanes first, then lane by lane.
inline float dot(const float* a, const float* b, int64_t n) {
  vfloat sum = {};
  int64_t i = 0;
  for (; i + kLanes <= n; i += kLanes) {
    sum += load(a + i) * load(b + i);
  }
  if (i < n) {
    const int rest = static_cast<int>(n - i);
    sum += load_partial(a + i, rest) * load_partial(b + i, rest);
  }
  return sum_of_lanes(sum);
}

}  // namespace mlx_esm_kernels::cpu::CPU_TARGET
