// Vectors of two to four scalars, with Metal's constructors, conversions and
// operators.
#pragma once

#include "base.h"

namespace metal {
template <class T, int N>
struct vec;
}

namespace emu {

using metal::vec;

// One access of memory for a whole vector, unless that were 32 bytes: the
// sanitizer's checks know no more than 16.
template <class T, int N, bool Wide>
struct storage {
  typedef T type __attribute__((ext_vector_type(N)));
};
template <class T, int N>
struct storage<T, N, true> {
  struct alignas(4 * sizeof(T)) type {
    T e[N == 3 ? 4 : N];
    T& operator[](int i) {
      return e[i];
    }
    constexpr const T& operator[](int i) const {
      return e[i];
    }
  };
};
template <int N>
struct storage<bool, N, false> {
  typedef uchar type __attribute__((ext_vector_type(N)));
};

template <class T, int N>
struct fields;

#include "swizzle.h"
#include "swizzles.h"

template <class T>
constexpr int width = 1;
template <class T, int N>
constexpr int width<vec<T, N>> = N;

template <class T>
struct element {
  typedef T type;
};
template <class T, int N>
struct element<vec<T, N>> {
  typedef T type;
};

// The n-th scalar of a constructor's arguments.
template <class T, class A>
constexpr T part(int n, A a) {
  if constexpr (width<A> == 1) {
    return T(a);
  } else {
    return T(a.v[n]);
  }
}
template <class T, class A, class... B>
constexpr T nth(int n, A a, B... b) {
  if constexpr (sizeof...(B) == 0) {
    return part<T>(n, a);
  } else {
    return n < width<A> ? part<T>(n, a) : nth<T>(n - width<A>, b...);
  }
}
template <class T, class A>
constexpr bool same_element() {
  return width<A> == 1 || metal::is_same<T, typename element<A>::type>::value;
}

// A table of the program's, as constant memory.
template <class T, size_t N>
constant T (&in_constant(__global const T (&table)[N])) [N] { return *(constant T(*)[N]) & table; }

// An operand of c ? a : b, without the address space that it came from.
template <class T>
constexpr T value(T x) {
  return x;
}

inline void check_index(int i, int n) {
  if (uint(i) >= uint(n)) {
    emu_fault("a vector has no such element", 0);
  }
}

}  // namespace emu

namespace metal {

#define EMU_ARITHMETIC(op)                \
  friend vec operator op(vec a, vec b) {  \
    vec r;                                \
    r.v[0] = T(T(a.v[0]) op T(b.v[0]));   \
    r.v[1] = T(T(a.v[1]) op T(b.v[1]));   \
    if constexpr (N > 2)                  \
      r.v[2] = T(T(a.v[2]) op T(b.v[2])); \
    if constexpr (N > 3)                  \
      r.v[3] = T(T(a.v[3]) op T(b.v[3])); \
    return r;                             \
  }                                       \
  vec& operator op## = (vec b) {          \
    *this = *this op b;                   \
    return *this;                         \
  }
#define EMU_COMPARISON(op)                        \
  friend vec<bool, N> operator op(vec a, vec b) { \
    vec<bool, N> r;                               \
    r.v[0] = T(a.v[0]) op T(b.v[0]);              \
    r.v[1] = T(a.v[1]) op T(b.v[1]);              \
    if constexpr (N > 2)                          \
      r.v[2] = T(a.v[2]) op T(b.v[2]);            \
    if constexpr (N > 3)                          \
      r.v[3] = T(a.v[3]) op T(b.v[3]);            \
    return r;                                     \
  }
#define EMU_UNARY(result, op)        \
  friend result operator op(vec a) { \
    result r;                        \
    r.v[0] = op T(a.v[0]);           \
    r.v[1] = op T(a.v[1]);           \
    if constexpr (N > 2)             \
      r.v[2] = op T(a.v[2]);         \
    if constexpr (N > 3)             \
      r.v[3] = op T(a.v[3]);         \
    return r;                        \
  }
#define EMU_COMMA ,

template <class T, int N>
struct vec : emu::fields<T, N> {
  static_assert(N >= 2 && N <= 4, "a vector has two, three or four elements");
  static_assert(emu::scalar<T>::kind != 0, "a vector is of scalars");
  using emu::fields<T, N>::v;

  vec() = default;
  template <class S, enable_if_t<emu::splats<T, S>(), int> = 0>
  constexpr vec(S s) : vec(T(s), T(s), T(s), T(s), emu::parts()) {}
  template <class S, enable_if_t<!emu::splats<T, S>() && emu::scalar<S>::kind != 0, int> = 0>
  explicit constexpr vec(S s) : vec(T(s), T(s), T(s), T(s), emu::parts()) {}
  template <class U, enable_if_t<!is_same<T, U>::value, int> = 0>
  explicit constexpr vec(vec<U, N> u)
      : vec(T(u.v[0]), T(u.v[1]), N > 2 ? T(u.v[N > 2 ? 2 : 0]) : T(0),
            N > 3 ? T(u.v[N > 3 ? 3 : 0]) : T(0), emu::parts()) {}
  // Scalars and vectors of T that have N elements together.
  template <class A, class B, class... C,
            enable_if_t<(emu::width<A> + emu::width<B> + (0 + ... + emu::width<C>)) == N &&
                            emu::same_element<T, A>() &&
                            (true && ... && emu::same_element<T, C>()) && emu::same_element<T, B>(),
                        int> = 0>
  constexpr vec(A a, B b, C... c)
      : vec(emu::nth<T>(0, a, b, c...), emu::nth<T>(1, a, b, c...),
            N > 2 ? emu::nth<T>(N > 2 ? 2 : 0, a, b, c...) : T(0),
            N > 3 ? emu::nth<T>(N > 3 ? 3 : 0, a, b, c...) : T(0), emu::parts()) {}

  T operator[](int i) const {
    emu::check_index(i, N);
    return T(v[i]);
  }
  T& operator[](int i) {
    emu::check_index(i, N);
    return ((T*)&v)[i];
  }

  EMU_ARITHMETIC(+)
  EMU_ARITHMETIC(-)
  EMU_ARITHMETIC(*)
  EMU_ARITHMETIC(/)
  EMU_ARITHMETIC(%)
  EMU_ARITHMETIC(&)
  EMU_ARITHMETIC(|)
  EMU_ARITHMETIC(^)
  EMU_ARITHMETIC(<<)
  EMU_ARITHMETIC(>>)
  EMU_COMPARISON(<)
  EMU_COMPARISON(>)
  EMU_COMPARISON(<=)
  EMU_COMPARISON(>=)
  EMU_COMPARISON(==)
  EMU_COMPARISON(!=)
  EMU_COMPARISON(&&)
  EMU_COMPARISON(||)
  EMU_UNARY(vec, -)
  EMU_UNARY(vec, ~)
  EMU_UNARY(vec<bool EMU_COMMA N>, !)

 private:
  constexpr vec(T a, T b, T c, T d, emu::parts p) : emu::fields<T, N>(a, b, c, d, p) {}
};

}  // namespace metal
