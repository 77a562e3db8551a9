// A thread turns four pairs of one head of one token: the numbers [at, at + 4) of each half.
#include "metal/shading/types.h"
#include "rotary/metal/params.h"

using namespace metal;

typedef vec<ELEMENT, 4> Element4;

// Unit strides in D, halves of whole vectors, and rows that begin at a multiple of four elements.
constant bool VECTORS [[function_constant(0)]];

// Of four numbers those below `count`.
inline float4 load_four(device const ELEMENT* from, int64_t stride, int count) {
  if (VECTORS) {
    return float4(*reinterpret_cast<device const Element4*>(from));
  }
  float4 x = float4(0.0f);
  for (int i = 0; i < count; ++i) {
    x[i] = float(from[int64_t(i) * stride]);
  }
  return x;
}

inline float4 load_angles(device const float* from, int count) {
  if (VECTORS) {
    return *reinterpret_cast<device const float4*>(from);
  }
  float4 x = float4(0.0f);
  for (int i = 0; i < count; ++i) {
    x[i] = from[i];
  }
  return x;
}

inline void store_four(device ELEMENT* to, float4 x, int count) {
  if (VECTORS) {
    *reinterpret_cast<device Element4*>(to) = Element4(x);
    return;
  }
  for (int i = 0; i < count; ++i) {
    to[i] = ELEMENT(x[i]);
  }
}

// Grid: (tiles of kTurnThreads over L H ceil(D / 2 / 4), 1, B).
[[kernel, max_total_threads_per_threadgroup(kTurnThreads)]] void rotary_turn(
    device const ELEMENT* x [[buffer(0)]], device const float* angles [[buffer(1)]],
    device ELEMENT* out [[buffer(2)]], constant RotaryParams& p [[buffer(3)]],
    uint3 group [[threadgroup_position_in_grid]],
    uint thread_index [[thread_index_in_threadgroup]]) {
  const uint half_dim = uint(p.D) / 2u;
  const uint quads = (half_dim + uint(kTurnPairs) - 1u) / uint(kTurnPairs);
  // Neighbouring threads take what lies side by side where heads come last.
  const uint index = group.x * uint(kTurnThreads) + thread_index;
  const uint row = index / quads, at = index % quads * uint(kTurnPairs);
  const uint l = row / uint(p.H), h = row % uint(p.H);
  if (l >= uint(p.L)) {
    return;
  }
  const int64_t b = int64_t(group.z);
  const int count = int(min(half_dim - at, uint(kTurnPairs)));
  device const float* turn = angles + (b * p.L + int64_t(l)) * p.D + int64_t(at);
  const float4 cosine = load_angles(turn, count);
  const float4 sine = p.sign * load_angles(turn + half_dim, count);

  device const ELEMENT* from =
      x + b * p.x_b + int64_t(h) * p.x_h + int64_t(l) * p.x_l + int64_t(at) * p.x_d;
  const float4 first = load_four(from, p.x_d, count);
  const float4 second = load_four(from + int64_t(half_dim) * p.x_d, p.x_d, count);
  device ELEMENT* to =
      out + b * p.out_b + int64_t(h) * p.out_h + int64_t(l) * p.out_l + int64_t(at);
  store_four(to, first * cosine - second * sine, count);
  store_four(to + half_dim, second * cosine + first * sine, count);
}
