// Address spaces, scalar types and their traits.
#pragma once

#pragma OPENCL EXTENSION cl_khr_fp16 : enable

#include "../runtime/abi.h"

// device and constant share no pointer conversion: each is a subset of OpenCL's
// global memory.
#define device __attribute__((opencl_global_device))
#define constant const __attribute__((opencl_global_host))
#define threadgroup __local
#define thread __private

// Library code whose own reads and writes are none of the kernel's.
#define EMU_QUIET __attribute__((no_sanitize("thread")))

typedef unsigned char uchar;
typedef unsigned short ushort;
typedef unsigned int uint;
typedef unsigned long ulong;
typedef __bf16 bfloat;
typedef signed char int8_t;
typedef unsigned char uint8_t;
typedef short int16_t;
typedef unsigned short uint16_t;
typedef int int32_t;
typedef unsigned int uint32_t;
typedef long int64_t;
typedef unsigned long uint64_t;
typedef unsigned long size_t;
typedef long ptrdiff_t;

namespace metal {

template <class T, T V>
struct integral_constant {
  static constexpr __global const T value = V;
};
typedef integral_constant<bool, true> true_type;
typedef integral_constant<bool, false> false_type;

template <class A, class B>
struct is_same : false_type {};
template <class A>
struct is_same<A, A> : true_type {};
template <class A, class B>
constexpr __global const bool is_same_v = is_same<A, B>::value;

template <bool C, class T = void>
struct enable_if {};
template <class T>
struct enable_if<true, T> {
  typedef T type;
};
template <bool C, class T = void>
using enable_if_t = typename enable_if<C, T>::type;

template <bool C, class A, class B>
struct conditional {
  typedef A type;
};
template <class A, class B>
struct conditional<false, A, B> {
  typedef B type;
};
template <bool C, class A, class B>
using conditional_t = typename conditional<C, A, B>::type;

}  // namespace metal

namespace emu {

// Where what an expression names lies: 0 nowhere, it is a value; 1 device, 2 constant,
// 3 threadgroup, 4 thread memory. T: decltype((expression)).
template <class T>
struct space_of {
  enum { value = 0 };
};
#define EMU_SPACE(space, value_) \
  template <class T>             \
  struct space_of<space T&> {    \
    enum { value = value_ };     \
  };
EMU_SPACE(device, 1)
EMU_SPACE(constant, 2)
EMU_SPACE(__global const, 2)
EMU_SPACE(threadgroup, 3)
EMU_SPACE(thread, 4)
#undef EMU_SPACE

template <class A, class B>
constexpr bool share_space() {
  const int a = space_of<A>::value, b = space_of<B>::value;
  return a == 0 || b == 0 || a == b;
}
template <class A, class B, metal::enable_if_t<share_space<A, B>(), int> = 0>
constexpr bool in_one_space() {
  return true;
}
template <class A, class B, metal::enable_if_t<!share_space<A, B>(), int> = 0>
__attribute__((
    unavailable("the operands of ?: lie in different address spaces; Metal's compiler "
                "may refuse them: choose by if"))) constexpr bool
in_one_space() {
  return true;
}

// kind: 0 no scalar, 1 bool, 2 integer, 3 floating point, 4 bfloat. rank: what
// C calls it.
template <class T>
struct scalar {
  enum { kind = 0, rank = 0, is_unsigned = 0 };
};
#define EMU_SCALAR(type, kind_, rank_, unsigned_)                 \
  template <>                                                     \
  struct scalar<type> {                                           \
    enum { kind = kind_, rank = rank_, is_unsigned = unsigned_ }; \
  };
EMU_SCALAR(bool, 1, 0, 1)
EMU_SCALAR(char, 2, 1, 0)
EMU_SCALAR(signed char, 2, 1, 0)
EMU_SCALAR(uchar, 2, 1, 1)
EMU_SCALAR(short, 2, 2, 0)
EMU_SCALAR(ushort, 2, 2, 1)
EMU_SCALAR(int, 2, 4, 0)
EMU_SCALAR(uint, 2, 4, 1)
EMU_SCALAR(long, 2, 8, 0)
EMU_SCALAR(ulong, 2, 8, 1)
EMU_SCALAR(half, 3, 2, 0)
EMU_SCALAR(float, 3, 4, 0)
EMU_SCALAR(bfloat, 4, 2, 0)
#undef EMU_SCALAR

// Whether a scalar S may meet a vector of T without a cast: never narrowed.
template <class T, class S>
constexpr bool splats() {
  if (metal::is_same<T, S>::value) {
    return true;
  }
  const int to = scalar<T>::kind, from = scalar<S>::kind;
  if (from == 0 || to == 0) {
    return false;
  }
  if (to >= 3) {
    return from <= 2 || (to == 3 && int(scalar<S>::rank) < int(scalar<T>::rank));
  }
  return from <= to && (int(scalar<S>::rank) < int(scalar<T>::rank) ||
                        (int(scalar<S>::rank) == int(scalar<T>::rank) && scalar<T>::is_unsigned));
}

}  // namespace emu
