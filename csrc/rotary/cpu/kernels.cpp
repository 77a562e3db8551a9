// Compiled once per instruction set, with CPU_TARGET naming its namespace. See rotary.md.
#include "rotary/cpu/kernels.h"

#include "cpu/rows.h"

namespace mlx_esm_kernels::cpu::CPU_TARGET {

namespace {

// How the numbers of heads side by side are turned, for a stretch of whole heads and whole vectors:
// y = x cosine + sine times what stands half a head further, or half a head before.
struct Turn {
  int64_t length;
  float *cosine, *sine;
  int32_t* is_first;  // all bits, or none
};

int64_t whole_vectors(int64_t D) {
  int64_t length = D;
  while (length % kLanes != 0) {
    length += D;
  }
  return length;
}

// What of it does not depend on the token.
Turn turn_in(float* scratch, int64_t D) {
  const int64_t length = whole_vectors(D);
  const Turn turn{length, scratch, scratch + length,
                  reinterpret_cast<int32_t*>(scratch + 2 * length)};
  for (int64_t i = 0; i < length; ++i) {
    turn.is_first[i] = i % D < D / 2 ? -1 : 0;
  }
  return turn;
}

inline void set_angles(const Turn& turn, const float* angles, int64_t D, bool back) {
  const int64_t half = D / 2;
  const float sign = back ? -1.0f : 1.0f;
  for (int64_t head = 0; head < turn.length; head += D) {
    float *cosine = turn.cosine + head, *sine = turn.sine + head;
    for_each_vector(half, [&](int64_t i, int count) {
      const vfloat c = load_some(angles + i, count), s = sign * load_some(angles + half + i, count);
      store_some(cosine + i, c, count);
      store_some(cosine + half + i, c, count);
      store_some(sine + i, -s, count);
      store_some(sine + half + i, s, count);
    });
  }
}

inline vint load_bits32(const int32_t* p) {
  vint v;
  __builtin_memcpy(&v, p, sizeof v);
  return v;
}

// n numbers of whole heads, which have half a head of other numbers on either side.
template <class T>
inline void turn_row(const Turn& turn, const float* x, int64_t half, int64_t n, T* out) {
  for (int64_t at = 0; at < n; at += turn.length) {
    for (int64_t i = 0; i < turn.length && at + i < n; i += kLanes) {
      const float* from = x + at + i;
      // Selected, not multiplied by 0: the neighbour in the row may be NaN.
      const vfloat partner = load_bits32(turn.is_first + i) ? load(from + half) : load(from - half);
      const vfloat y = load(from) * load(turn.cosine + i) + partner * load(turn.sine + i);
      store_some(out + at + i, y, static_cast<int>(n - at - i < kLanes ? n - at - i : kLanes));
    }
  }
}

template <class T>
void turn_tokens(const RotaryTurn& r, int64_t begin, int64_t end, float* scratch) {
  const int64_t D = r.D, half = D / 2;
  const Turn turn = turn_in(scratch, D);
  float* row = scratch + 3 * turn.length + half;
  // Heads that lie side by side in both are one row.
  const bool together = r.x.h_stride == D && r.x.d_stride == 1 && r.out.h_stride == D;
  const int64_t rows = together ? 1 : r.H, n = together ? r.H * D : D;
  clear_row(row - half, half + n + half + kLanes);
  for (int64_t token = begin; token < end; ++token) {
    const int64_t b = token / r.L, l = token % r.L;
    set_angles(turn, r.angles + token * D, D, r.back);
    for (int64_t h = 0; h < rows; ++h) {
      const T* x =
          static_cast<const T*>(r.x.data) + b * r.x.b_stride + h * r.x.h_stride + l * r.x.l_stride;
      T* out = static_cast<T*>(r.out.data) + b * r.out.b_stride + h * r.out.h_stride +
               l * r.out.l_stride;
      read_row(x, r.x.d_stride, n, row);
      turn_row(turn, row, half, n, out);
    }
  }
}

void turn(const RotaryTurn& args, int64_t begin, int64_t end, float* scratch) {
  with_type(args.dtype, [&]<class T>(T) { turn_tokens<T>(args, begin, end, scratch); });
}

}  // namespace

const RotaryKernels rotary_kernels = {turn};

}  // namespace mlx_esm_kernels::cpu::CPU_TARGET
