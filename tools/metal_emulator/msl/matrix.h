// simdgroup_matrix: 8 x 8 fragments, two elements a lane, in Apple's layout.
#pragma once

#include "simdgroup.h"

namespace emu {

// What thread_elements() gives: to be cast to a vector of two, or indexed.
template <class T>
struct matrix_elements {
  T e[2] __attribute__((aligned(2 * sizeof(T))));
  T& operator[](int i) {
    return e[i];
  }
};

inline uint matrix_row() {
  const uint lane = this_lane();
  return (lane / 4 & 4) + lane / 2 % 4;
}
inline uint matrix_column() {
  const uint lane = this_lane();
  return (lane / 4 & 2) * 2 + lane % 2 * 2;
}

EMU_QUIET inline void need_all_lanes(EMU_TEXT operation, uint line) {
  if (gather<uint>(0u, operation, line).active != 0xffffffffu) {
    emu_fault("a simdgroup_matrix function is called by a part of the simdgroup", line);
  }
}

}  // namespace emu

namespace metal {

template <class T, int Columns, int Rows>
struct simdgroup_matrix {
  static_assert(Columns == 8 && Rows == 8, "a simdgroup_matrix is 8 x 8");
  static_assert(is_same_v<T, float> || is_same_v<T, half> || is_same_v<T, bfloat>,
                "a simdgroup_matrix is of float, half or bfloat");
  thread emu::matrix_elements<T>& thread_elements() thread {
    return elements;
  }

  emu::matrix_elements<T> elements;
};
typedef simdgroup_matrix<float, 8, 8> simdgroup_float8x8;
typedef simdgroup_matrix<half, 8, 8> simdgroup_half8x8;
typedef simdgroup_matrix<bfloat, 8, 8> simdgroup_bfloat8x8;

template <class T, int Columns, int Rows>
inline simdgroup_matrix<T, Columns, Rows> make_filled_simdgroup_matrix(T x) {
  simdgroup_matrix<T, Columns, Rows> m;
  m.elements.e[0] = x;
  m.elements.e[1] = x;
  return m;
}

template <class D, class A, class B, class C>
EMU_QUIET inline void simdgroup_multiply_accumulate(thread simdgroup_matrix<D, 8, 8>& d,
                                                    thread const simdgroup_matrix<A, 8, 8>& a,
                                                    thread const simdgroup_matrix<B, 8, 8>& b,
                                                    thread const simdgroup_matrix<C, 8, 8>& c,
                                                    uint line = __builtin_LINE()) {
  const float left[2] = {float(a.elements.e[0]), float(a.elements.e[1])};
  const float right[2] = {float(b.elements.e[0]), float(b.elements.e[1])};
  const float sum[2] = {float(c.elements.e[0]), float(c.elements.e[1])};
  float result[2];
  emu_multiply_accumulate(result, left, right, sum, line);
  d.elements.e[0] = D(result[0]);
  d.elements.e[1] = D(result[1]);
}

template <class D, class A, class B>
inline void simdgroup_multiply(thread simdgroup_matrix<D, 8, 8>& d,
                               thread const simdgroup_matrix<A, 8, 8>& a,
                               thread const simdgroup_matrix<B, 8, 8>& b,
                               uint line = __builtin_LINE()) {
  const simdgroup_matrix<float, 8, 8> zero = make_filled_simdgroup_matrix<float, 8, 8>(0.0f);
  simdgroup_multiply_accumulate(d, a, b, zero, line);
}

// Reads and writes are the lane's own two elements. `origin` is (column, row).
#define EMU_LOAD(space)                                                                \
  template <class T>                                                                   \
  inline void simdgroup_load(thread simdgroup_matrix<T, 8, 8>& m, space const T* from, \
                             ulong elements_per_row = 8, ulong2 origin = ulong2(0ul),  \
                             bool transposed = false, uint line = __builtin_LINE()) {  \
    emu::need_all_lanes("simdgroup_load", line);                                       \
    from += origin.y * elements_per_row + origin.x;                                    \
    const ulong row = emu::matrix_row(), column = emu::matrix_column();                \
    for (ulong e = 0; e < 2; ++e) {                                                    \
      m.elements.e[e] = transposed ? from[(column + e) * elements_per_row + row]       \
                                   : from[row * elements_per_row + column + e];        \
    }                                                                                  \
  }
#define EMU_STORE(space)                                                               \
  template <class T>                                                                   \
  inline void simdgroup_store(thread const simdgroup_matrix<T, 8, 8>& m, space T* to,  \
                              ulong elements_per_row = 8, ulong2 origin = ulong2(0ul), \
                              bool transposed = false, uint line = __builtin_LINE()) { \
    emu::need_all_lanes("simdgroup_store", line);                                      \
    to += origin.y * elements_per_row + origin.x;                                      \
    const ulong row = emu::matrix_row(), column = emu::matrix_column();                \
    for (ulong e = 0; e < 2; ++e) {                                                    \
      to[transposed ? (column + e) * elements_per_row + row                            \
                    : row * elements_per_row + column + e] = m.elements.e[e];          \
    }                                                                                  \
  }
EMU_LOAD(device)
EMU_LOAD(threadgroup)
EMU_STORE(device)
EMU_STORE(threadgroup)

}  // namespace metal
