// Barriers and the collectives of a simdgroup. Lanes that do not take part give
// nothing, and to read from one is a fault.
#pragma once

#include "math.h"

namespace metal {

enum class mem_flags : uint { mem_none = 0, mem_device = 1, mem_threadgroup = 2, mem_texture = 4 };
constexpr mem_flags operator|(mem_flags a, mem_flags b) {
  return mem_flags(uint(a) | uint(b));
}

inline void threadgroup_barrier(mem_flags flags, uint line = __builtin_LINE()) {
  emu_barrier(emu_scope_threadgroup, uint(flags), line);
}
inline void simdgroup_barrier(mem_flags flags, uint line = __builtin_LINE()) {
  emu_barrier(emu_scope_simdgroup, uint(flags), line);
}

}  // namespace metal

namespace emu {

// What Metal's collectives take: no bool, no bfloat, nothing of 64 bits.
template <class T>
constexpr void check_lane_type() {
  typedef typename element<T>::type E;
  static_assert((scalar<E>::kind == 2 || scalar<E>::kind == 3) && sizeof(E) <= 4,
                "simdgroup functions take char, short, int, their unsigned "
                "kinds, half and float");
}

template <class T>
struct lanes {
  T values[32];
  uint active;
  uint line;

  EMU_QUIET T from(uint lane) const {
    if (lane >= 32 || (active >> lane & 1u) == 0) {
      emu_fault("a simdgroup function reads from a lane that does not take part", line);
      lane = emu_builtin(emu_thread_index_in_simdgroup, 0);
    }
    return values[lane];
  }
};

template <class T>
EMU_QUIET inline lanes<T> gather(T x, EMU_TEXT operation, uint line) {
  lanes<T> all;
  all.active = emu_gather(&x, sizeof(T), all.values, operation, line);
  all.line = line;
  return all;
}

inline uint this_lane() {
  return emu_builtin(emu_thread_index_in_simdgroup, 0);
}

// Neighbours first, then pairs of them and so on: the order of a butterfly.
template <class T, class F>
EMU_QUIET inline T reduce(lanes<T> all, F f) {
  T x[32];
  uint has = all.active;
  for (uint i = 0; i < 32; ++i) {
    if (has >> i & 1u)
      x[i] = all.values[i];
  }
  for (uint step = 1; step < 32; step *= 2) {
    for (uint i = 0; i < 32; i += 2 * step) {
      const bool left = has >> i & 1u, right = has >> (i + step) & 1u;
      if (right)
        x[i] = left ? f(x[i], x[i + step]) : value(x[i + step]);
      has |= uint(right) << i;
    }
  }
  return x[0];
}

struct add {
  template <class T>
  T operator()(T a, T b) const {
    return T(a + b);
  }
};
struct multiply {
  template <class T>
  T operator()(T a, T b) const {
    return T(a * b);
  }
};
struct least {
  template <class T>
  T operator()(T a, T b) const {
    return metal::min(a, b);
  }
};
struct greatest {
  template <class T>
  T operator()(T a, T b) const {
    return metal::max(a, b);
  }
};
struct bit_or {
  template <class T>
  T operator()(T a, T b) const {
    return T(a | b);
  }
};
struct bit_and {
  template <class T>
  T operator()(T a, T b) const {
    return T(a & b);
  }
};
struct bit_xor {
  template <class T>
  T operator()(T a, T b) const {
    return T(a ^ b);
  }
};

// Sums of the lanes below, `from` 1 with the lane's own.
template <class T, class F>
EMU_QUIET inline T scan(lanes<T> all, uint inclusive, T start, F f) {
  T x = start;
  const uint end = this_lane() + inclusive;
  for (uint i = 0; i < end; ++i) {
    if (all.active >> i & 1u)
      x = f(x, all.values[i]);
  }
  return x;
}

}  // namespace emu

namespace metal {

#define EMU_REDUCTION(name, f)                                  \
  template <class T>                                            \
  EMU_QUIET inline T name(T x, uint line = __builtin_LINE()) {  \
    emu::check_lane_type<T>();                                  \
    return emu::reduce<T>(emu::gather<T>(x, #name, line), f()); \
  }
EMU_REDUCTION(simd_sum, emu::add)
EMU_REDUCTION(simd_product, emu::multiply)
EMU_REDUCTION(simd_min, emu::least)
EMU_REDUCTION(simd_max, emu::greatest)
EMU_REDUCTION(simd_or, emu::bit_or)
EMU_REDUCTION(simd_and, emu::bit_and)
EMU_REDUCTION(simd_xor, emu::bit_xor)

#define EMU_SCAN(name, inclusive, start, f)                                        \
  template <class T>                                                               \
  EMU_QUIET inline T name(T x, uint line = __builtin_LINE()) {                     \
    emu::check_lane_type<T>();                                                     \
    return emu::scan<T>(emu::gather<T>(x, #name, line), inclusive, T(start), f()); \
  }
EMU_SCAN(simd_prefix_inclusive_sum, 1, 0, emu::add)
EMU_SCAN(simd_prefix_exclusive_sum, 0, 0, emu::add)
EMU_SCAN(simd_prefix_inclusive_product, 1, 1, emu::multiply)
EMU_SCAN(simd_prefix_exclusive_product, 0, 1, emu::multiply)

// The lanes of the upper or lower end, which have no partner, keep their own.
#define EMU_SHUFFLE(name, type, other, keeps)                          \
  template <class T>                                                   \
  EMU_QUIET inline T name(T x, type n, uint line = __builtin_LINE()) { \
    emu::check_lane_type<T>();                                         \
    const emu::lanes<T> all = emu::gather<T>(x, #name, line);          \
    const uint lane = emu::this_lane();                                \
    return keeps ? emu::value(x) : all.from(other);                    \
  }
EMU_SHUFFLE(simd_shuffle, ushort, n, lane > 31u)
EMU_SHUFFLE(simd_broadcast, ushort, n, lane > 31u)
EMU_SHUFFLE(simd_shuffle_xor, ushort, lane ^ n, lane > 31u)
EMU_SHUFFLE(simd_shuffle_up, ushort, lane - n, lane < n)
EMU_SHUFFLE(simd_shuffle_down, ushort, lane + n, lane + n > 31u)
EMU_SHUFFLE(simd_shuffle_rotate_up, ushort, ((lane - n) & 31u), lane > 31u)
EMU_SHUFFLE(simd_shuffle_rotate_down, ushort, ((lane + n) & 31u), lane > 31u)

template <class T>
EMU_QUIET inline T simd_broadcast_first(T x, uint line = __builtin_LINE()) {
  emu::check_lane_type<T>();
  const emu::lanes<T> all = emu::gather<T>(x, "simd_broadcast_first", line);
  return all.from(ctz(all.active));
}

// The lanes that took part, a bit each.
class simd_vote {
 public:
  typedef ulong vote_t;
  explicit simd_vote(vote_t votes = 0) : votes_(votes) {}
  explicit operator vote_t() const {
    return votes_;
  }
  bool all() const {
    return (uint(votes_) ^ 0xffffffffu) == 0;
  }
  bool any() const {
    return votes_ != 0;
  }

 private:
  vote_t votes_;
};

EMU_QUIET inline uint emu_votes(bool x, EMU_TEXT name, uint line, thread uint& active) {
  const uint mine = x;
  const emu::lanes<uint> all = emu::gather<uint>(mine, name, line);
  active = all.active;
  uint votes = 0;
  for (uint i = 0; i < 32; ++i) {
    if ((active >> i & 1u) && all.values[i])
      votes |= 1u << i;
  }
  return votes;
}
inline simd_vote simd_ballot(bool x, uint line = __builtin_LINE()) {
  uint active;
  return simd_vote(emu_votes(x, "simd_ballot", line, active));
}
inline simd_vote simd_active_threads_mask(uint line = __builtin_LINE()) {
  uint active;
  return simd_vote(emu_votes(true, "simd_active_threads_mask", line, active));
}
inline bool simd_any(bool x, uint line = __builtin_LINE()) {
  uint active;
  return emu_votes(x, "simd_any", line, active) != 0;
}
inline bool simd_all(bool x, uint line = __builtin_LINE()) {
  uint active;
  const uint votes = emu_votes(x, "simd_all", line, active);
  return votes == active;
}
inline bool simd_is_first(uint line = __builtin_LINE()) {
  uint active;
  emu_votes(true, "simd_is_first", line, active);
  return ctz(active) == emu::this_lane();
}

}  // namespace metal
