// Functions of scalars and vectors. Scalars are overloaded type by type, as in
// Metal's library, so that max(int, uint) is ambiguous here too.
#pragma once

#include "vector.h"

template <class To, class From>
inline To as_type(From x) {
  static_assert(sizeof(To) == sizeof(From), "as_type needs types of one size");
  return __builtin_bit_cast(To, x);
}

namespace metal {

#define EMU_EACH_INTEGER(f) f(char) f(uchar) f(short) f(ushort) f(int) f(uint) f(long) f(ulong)
#define EMU_EACH_NUMBER(f) f(float) f(half) EMU_EACH_INTEGER(f)

#define EMU_ORDER(T)                   \
  inline T min(T a, T b) {             \
    return b < a ? b : a;              \
  }                                    \
  inline T max(T a, T b) {             \
    return a < b ? b : a;              \
  }                                    \
  inline T clamp(T x, T low, T high) { \
    return min(max(x, low), high);     \
  }                                    \
  inline T abs(T x) {                  \
    return x < T(0) ? T(-x) : x;       \
  }
#define EMU_FLOAT_ORDER(T)                      \
  inline T min(T a, T b) {                      \
    return T(__builtin_fminf(a, b));            \
  }                                             \
  inline T max(T a, T b) {                      \
    return T(__builtin_fmaxf(a, b));            \
  }                                             \
  inline T clamp(T x, T low, T high) {          \
    return min(max(x, low), high);              \
  }                                             \
  inline T fmin(T a, T b) {                     \
    return min(a, b);                           \
  }                                             \
  inline T fmax(T a, T b) {                     \
    return max(a, b);                           \
  }                                             \
  inline T abs(T x) {                           \
    return T(__builtin_fabsf(x));               \
  }                                             \
  inline T fabs(T x) {                          \
    return T(__builtin_fabsf(x));               \
  }                                             \
  inline bool isnan(T x) {                      \
    return x != x;                              \
  }                                             \
  inline bool isinf(T x) {                      \
    return __builtin_isinf(float(x));           \
  }                                             \
  inline bool isfinite(T x) {                   \
    return __builtin_isfinite(float(x));        \
  }                                             \
  inline T sign(T x) {                          \
    return T(x > T(0) ? 1 : x < T(0) ? -1 : 0); \
  }                                             \
  inline T saturate(T x) {                      \
    return clamp(x, T(0), T(1));                \
  }                                             \
  inline T rsqrt(T x) {                         \
    return T(1.0f / __builtin_sqrtf(x));        \
  }                                             \
  inline T exp10(T x) {                         \
    return T(__builtin_powf(10.0f, x));         \
  }                                             \
  inline T fract(T x) {                         \
    return T(x - __builtin_floorf(x));          \
  }                                             \
  inline T mix(T a, T b, T t) {                 \
    return T(a + (b - a) * t);                  \
  }                                             \
  inline T pow(T a, T b) {                      \
    return T(__builtin_powf(a, b));             \
  }                                             \
  inline T fmod(T a, T b) {                     \
    return T(__builtin_fmodf(a, b));            \
  }                                             \
  inline T copysign(T a, T b) {                 \
    return T(__builtin_copysignf(a, b));        \
  }                                             \
  inline T atan2(T a, T b) {                    \
    return T(__builtin_atan2f(a, b));           \
  }
EMU_EACH_INTEGER(EMU_ORDER)
EMU_FLOAT_ORDER(float)
EMU_FLOAT_ORDER(half)

// One rounding: the product of two halves is exact in float, but not its sum
// with a third.
inline float fma(float a, float b, float c) {
  return __builtin_fmaf(a, b, c);
}
inline half fma(half a, half b, half c) {
  return __builtin_fmaf16(a, b, c);
}

#define EMU_EACH_FLOAT_FUNCTION(f)                                                                 \
  f(exp) f(exp2) f(log) f(log2) f(log10) f(sqrt) f(floor) f(ceil) f(trunc) f(rint) f(round) f(sin) \
      f(cos) f(tan) f(asin) f(acos) f(atan) f(sinh) f(cosh) f(tanh)
#define EMU_FLOAT_FUNCTION(name)         \
  inline float name(float x) {           \
    return __builtin_##name##f(x);       \
  }                                      \
  inline half name(half x) {             \
    return half(__builtin_##name##f(x)); \
  }
EMU_EACH_FLOAT_FUNCTION(EMU_FLOAT_FUNCTION)

#define EMU_BITS(T)                                                                            \
  inline T popcount(T x) {                                                                     \
    return T(__builtin_popcountl(ulong(x) & (~0ul >> (64 - 8 * sizeof(T)))));                  \
  }                                                                                            \
  inline T ctz(T x) {                                                                          \
    return x == T(0) ? T(8 * sizeof(T)) : T(__builtin_ctzl(ulong(x)));                         \
  }                                                                                            \
  inline T clz(T x) {                                                                          \
    const ulong bits = ulong(x) & (~0ul >> (64 - 8 * sizeof(T)));                              \
    return bits == 0 ? T(8 * sizeof(T)) : T(__builtin_clzl(bits) - (64 - 8 * int(sizeof(T)))); \
  }
EMU_EACH_INTEGER(EMU_BITS)

#define EMU_SELECT(T)                 \
  inline T select(T a, T b, bool c) { \
    return c ? b : a;                 \
  }
EMU_EACH_NUMBER(EMU_SELECT)
EMU_SELECT(bool)
EMU_SELECT(bfloat)

// The same of vectors, element by element.
template <class V>
struct as_is {
  typedef V type;
};
#define EMU_OF_ELEMENTS(result, f, parameters, one, two, three, four) \
  template <class T, int N>                                           \
  inline result f parameters {                                        \
    result r;                                                         \
    r.v[0] = one;                                                     \
    r.v[1] = two;                                                     \
    if constexpr (N > 2)                                              \
      r.v[2] = three;                                                 \
    if constexpr (N > 3)                                              \
      r.v[3] = four;                                                  \
    return r;                                                         \
  }
#define EMU_V vec<T, N>
#define EMU_OTHER typename as_is<vec<T, N>>::type
#define EMU_B vec<bool, N>
#define EMU_VECTOR1(f) \
  EMU_OF_ELEMENTS(EMU_V, f, (EMU_V a), f(T(a.v[0])), f(T(a.v[1])), f(T(a.v[2])), f(T(a.v[3])))
#define EMU_VECTOR2(f)                                                       \
  EMU_OF_ELEMENTS(EMU_V, f, (EMU_V a, EMU_OTHER b), f(T(a.v[0]), T(b.v[0])), \
                  f(T(a.v[1]), T(b.v[1])), f(T(a.v[2]), T(b.v[2])), f(T(a.v[3]), T(b.v[3])))
#define EMU_VECTOR3(f)                                                                    \
  EMU_OF_ELEMENTS(EMU_V, f, (EMU_V a, EMU_OTHER b, EMU_OTHER c),                          \
                  f(T(a.v[0]), T(b.v[0]), T(c.v[0])), f(T(a.v[1]), T(b.v[1]), T(c.v[1])), \
                  f(T(a.v[2]), T(b.v[2]), T(c.v[2])), f(T(a.v[3]), T(b.v[3]), T(c.v[3])))
#define EMU_TEST(f) \
  EMU_OF_ELEMENTS(EMU_B, f, (EMU_V a), f(T(a.v[0])), f(T(a.v[1])), f(T(a.v[2])), f(T(a.v[3])))
EMU_EACH_FLOAT_FUNCTION(EMU_VECTOR1)
EMU_VECTOR1(abs)
EMU_VECTOR1(fabs)
EMU_VECTOR1(rsqrt)
EMU_VECTOR1(sign)
EMU_VECTOR1(saturate)
EMU_VECTOR1(fract)
EMU_VECTOR1(popcount)
EMU_VECTOR1(ctz)
EMU_VECTOR1(clz)
EMU_VECTOR2(min)
EMU_VECTOR2(max)
EMU_VECTOR2(fmin)
EMU_VECTOR2(fmax)
EMU_VECTOR2(pow)
EMU_VECTOR3(clamp)
EMU_VECTOR3(fma)
EMU_VECTOR3(mix)
EMU_TEST(isnan)
EMU_TEST(isinf)
EMU_TEST(isfinite)
EMU_OF_ELEMENTS(EMU_V, select, (EMU_V a, EMU_V b, EMU_B c), T(c.v[0] ? b.v[0] : a.v[0]),
                T(c.v[1] ? b.v[1] : a.v[1]), T(c.v[2] ? b.v[2] : a.v[2]),
                T(c.v[3] ? b.v[3] : a.v[3]))

template <int N>
inline bool any(vec<bool, N> a) {
  bool r = a.v[0] || a.v[1];
  if constexpr (N > 2)
    r = r || a.v[2];
  if constexpr (N > 3)
    r = r || a.v[3];
  return r;
}
template <int N>
inline bool all(vec<bool, N> a) {
  return !any(!a);
}
inline bool any(bool a) {
  return a;
}
inline bool all(bool a) {
  return a;
}

template <class T, int N>
inline T dot(vec<T, N> a, vec<T, N> b) {
  static_assert(emu::scalar<T>::kind == 3, "dot is of floating point vectors");
  T r = T(a.v[0]) * T(b.v[0]) + T(a.v[1]) * T(b.v[1]);
  if constexpr (N > 2)
    r += T(a.v[2]) * T(b.v[2]);
  if constexpr (N > 3)
    r += T(a.v[3]) * T(b.v[3]);
  return r;
}

// Nothing here is faster than precise.
namespace precise {
using metal::exp;
using metal::exp2;
using metal::log;
using metal::log2;
using metal::rsqrt;
using metal::sqrt;
}  // namespace precise
namespace fast {
// What these give for an infinity is not said: none may rely on 0.
inline float exp(float x) {
  return __builtin_isinf(x) ? __builtin_nanf("") : metal::exp(x);
}
inline float exp2(float x) {
  return __builtin_isinf(x) ? __builtin_nanf("") : metal::exp2(x);
}
using metal::log;
using metal::log2;
using metal::rsqrt;
using metal::sqrt;
}  // namespace fast

template <class T>
struct numeric_limits;
#define EMU_LIMITS(T, lowest_, max_) \
  template <>                        \
  struct numeric_limits<T> {         \
    static constexpr T lowest() {    \
      return lowest_;                \
    }                                \
    static constexpr T min() {       \
      return lowest_;                \
    }                                \
    static constexpr T max() {       \
      return max_;                   \
    }                                \
  };
#define EMU_FLOAT_LIMITS(T, max_, min_, epsilon_) \
  template <>                                     \
  struct numeric_limits<T> {                      \
    static constexpr T lowest() {                 \
      return T(-max_);                            \
    }                                             \
    static constexpr T min() {                    \
      return T(min_);                             \
    }                                             \
    static constexpr T max() {                    \
      return T(max_);                             \
    }                                             \
    static constexpr T epsilon() {                \
      return T(epsilon_);                         \
    }                                             \
    static constexpr T infinity() {               \
      return T(__builtin_huge_valf());            \
    }                                             \
    static constexpr T quiet_NaN() {              \
      return T(__builtin_nanf(""));               \
    }                                             \
  };
EMU_LIMITS(char, -128, 127)
EMU_LIMITS(uchar, 0, 255)
EMU_LIMITS(short, -32768, 32767)
EMU_LIMITS(ushort, 0, 65535)
EMU_LIMITS(int, -2147483647 - 1, 2147483647)
EMU_LIMITS(uint, 0u, 4294967295u)
EMU_LIMITS(long, -0x7fffffffffffffffl - 1, 0x7fffffffffffffffl)
EMU_LIMITS(ulong, 0ul, 0xfffffffffffffffful)
EMU_FLOAT_LIMITS(float, 0x1.fffffep127f, 0x1.0p-126f, 0x1.0p-23f)
EMU_FLOAT_LIMITS(half, 65504.0f, 0x1.0p-14f, 0x1.0p-10f)
EMU_FLOAT_LIMITS(bfloat, 0x1.fep127f, 0x1.0p-126f, 0x1.0p-7f)

}  // namespace metal

// Types by their short names. 64-bit vectors of Metal's are long2, ulong2 and
// so on.
#define EMU_NAMES(T)             \
  typedef metal::vec<T, 2> T##2; \
  typedef metal::vec<T, 3> T##3; \
  typedef metal::vec<T, 4> T##4;
EMU_EACH_NUMBER(EMU_NAMES)
EMU_NAMES(bool)
EMU_NAMES(bfloat)
