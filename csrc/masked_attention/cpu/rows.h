// The rows of a group: read from the arrays where they lie or copied side by side, asked for ahead,
// and written back. Compiled once per instruction set.
#pragma once

#include "cpu/matrix.h"
#include "cpu/rows.h"
#include "masked_attention/cpu/kernels.h"

namespace mlx_esm_kernels::cpu::CPU_TARGET {

inline int round_up(int n) {
  return (n + kLanes - 1) / kLanes * kLanes;
}

inline int smaller(int a, int b) {
  return a < b ? a : b;
}

// Hands out consecutive pieces of a task's scratch, each padded to 16 floats. Without memory it
// only counts what would be needed.
struct Arena {
  float* memory;
  int64_t used = 0;

  float* take(int64_t floats) {
    float* piece = memory == nullptr ? nullptr : memory + used;
    used += (floats + 15) / 16 * 16;
    return piece;
  }
};

// Where the rows of head (b, h) of a (B, H, L) array start.
inline int64_t head_start(const AttentionInputs& in, const Group& g) {
  return (static_cast<int64_t>(g.b) * in.H + g.h) * in.L;
}

template <class T>
inline T* row_of(const View& x, const Group& g, int i) {
  return static_cast<T*>(x.data) + g.b * x.b + g.h * x.h + g.positions[i] * x.l;
}

// Float32 rows in memory.
struct Rows {
  const float* data;
  int64_t pitch;

  const float* row(int i) const {
    return data + i * pitch;
  }
};

template <class T>
inline constexpr bool kIsFloat = false;
template <>
inline constexpr bool kIsFloat<float> = true;

// Whether rows [begin, end) of the group follow each other in the array.
inline bool adjacent(const Group& g, int begin, int end) {
  return g.positions[end - 1] - g.positions[begin] == end - 1 - begin;
}

// Rows [begin, begin + count) of the group: the array itself where they lie end to end in it, else
// a copy at `pitch`, with zeros from D on. Products read rows many times: at a wide stride, as in
// (B, L, H, D), they would fall on few sets of the cache and a page each.
template <class T>
inline Rows rows_of(const View& x, const Group& g, int begin, int count, int D, int pitch,
                    float* copy) {
  if constexpr (kIsFloat<T>) {
    if (adjacent(g, begin, begin + count) && x.d == 1 && x.l == D && D == pitch) {
      return {row_of<const float>(x, g, begin), D};
    }
  }
  if (adjacent(g, begin, begin + count) && x.d == 1 && x.l == D && D == pitch) {
    read_row(row_of<const T>(x, g, begin), 1, static_cast<int64_t>(count) * D, copy);
    return {copy, pitch};
  }
  for (int i = 0; i < count; ++i) {
    read_row(row_of<const T>(x, g, begin + i), x.d, D, copy + i * pitch);
    for (int d = D; d < pitch; ++d) {
      copy[i * pitch + d] = 0;
    }
  }
  return {copy, pitch};
}

// Writes `count` rows to rows from `begin` on of the group.
template <class T>
inline void write_rows(const float* rows, int pitch, const View& x, const Group& g, int begin,
                       int count, int D) {
  if (adjacent(g, begin, begin + count) && x.l == D && D == pitch) {
    write_row(rows, static_cast<int64_t>(count) * D, row_of<T>(x, g, begin));
    return;
  }
  for (int i = 0; i < count; ++i) {
    write_row(rows + i * pitch, D, row_of<T>(x, g, begin + i));
  }
}

// What scores and dP are sums of: where the processor multiplies pairs of T's numbers, rows as they
// are; elsewhere float32.
template <class T>
constexpr Element kElement = Element::float32;
#if defined(__AVX512BF16__)
template <>
constexpr Element kElement<BFloat16> = Element::bfloat16_pair;
#endif

template <Element kind>
constexpr int elements(int D) {
  return kind == Element::float32 ? D : (D + 1) / 2;
}

// Rows [begin, begin + count) of the group for products of `kind`: the array itself where they lie
// end to end in it, else a copy. An odd D's last pair ends with zero.
template <Element kind, class T>
inline Rows factors_of(const View& x, const Group& g, int begin, int count, int D, float* copy) {
  if constexpr (kind == Element::float32) {
    return rows_of<T>(x, g, begin, count, D, D, copy);
  } else {
    const T* first = row_of<const T>(x, g, begin);
    const int pitch = elements<kind>(D);
    if (adjacent(g, begin, begin + count) && x.d == 1 && x.l == D && D % 2 == 0 &&
        reinterpret_cast<uintptr_t>(first) % sizeof(float) == 0) {
      return {reinterpret_cast<const float*>(first), pitch};
    }
    for (int i = 0; i < count; ++i) {
      copy[i * pitch + pitch - 1] = 0;
      copy_row(row_of<const T>(x, g, begin + i), x.d, D, copy + i * pitch);
    }
    return {copy, pitch};
  }
}

// Whether `count` rows from `begin` on are kLanes in a row of whole vectors of float32.
template <class T>
inline bool vectors_in_place(const Group& g, int begin, int count, int D) {
  return kIsFloat<T> && count == kLanes && D % kLanes == 0 && adjacent(g, begin, begin + count);
}

// Rows that are read later, asked for a few at a time while products run. Not rows of one line that
// lie end to end: there the processor itself looks ahead.
template <class T>
class Ahead {
 public:
  explicit Ahead(int D) : bytes_(static_cast<int64_t>(D * sizeof(T))) {}

  void add(const View& x, const Group& g, int begin, int end) {
    const int64_t pitch = x.l * static_cast<int64_t>(sizeof(T));
    if ((pitch != bytes_ || bytes_ > kCacheLine) && adjacent(g, begin, end)) {
      const auto* row = reinterpret_cast<const char*>(row_of<const T>(x, g, begin));
      wanted_[count_++] = {row, pitch, end - begin};
    }
  }

  // From now on a call asks for so many rows that all have been after about `calls`.
  void spread(int calls) {
    int64_t rows = 0;
    for (int i = 0; i < count_; ++i) {
      rows += wanted_[i].rows;
    }
    rows_a_call_ = static_cast<int>(rows / (calls + 1) + 1);
  }

  void operator()() {
    if (count_ == 0) {
      return;
    }
    Wanted& w = wanted_[count_ - 1];
    const int rows = smaller(rows_a_call_, w.rows);
    for (int n = 0; n < rows; ++n, w.row += w.pitch) {
      for (int64_t byte = 0; byte < bytes_; byte += kCacheLine) {
        __builtin_prefetch(w.row + byte, 0, 2);
      }
    }
    w.rows -= rows;
    count_ -= w.rows == 0;
  }

 private:
  struct Wanted {
    const char* row;
    int64_t pitch;
    int rows;
  };

  int64_t bytes_;
  int rows_a_call_ = 0;
  int count_ = 0;
  Wanted wanted_[5];
};

}  // namespace mlx_esm_kernels::cpu::CPU_TARGET
