// Panels of queries, and how the rows of a group are brought into them. Compiled once per
// instruction set.
//
// Queries lie in the lanes: scores are kept transposed, S^T = K Q^T (keys x queries), so that
// maximum, sum and rescaling are vertical operations and no vector is ever reduced.
#pragma once

#include "cpu/matrix.h"
#include "cpu/rows.h"
#include "masked_attention/masked_attention_kernels.h"

namespace mlx_esm_kernels::cpu::CPU_TARGET {

constexpr int kWidth = kTileVectors * kLanes;  // queries of a panel, which are worked on together

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
constexpr bool kIsFloat = false;
template <>
constexpr bool kIsFloat<float> = true;

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

// What a product of `kind` means, a score to base 2 or scale dP: pairs are multiplied as they are,
// the transposed float32 factors already bear the factor.
template <Element kind>
[[gnu::always_inline]] inline vfloat scaled(vfloat product, float factor) {
  return kind == Element::float32 ? product : product * factor;
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
    if ((pitch != bytes_ || bytes_ > kLine) && adjacent(g, begin, end)) {
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
      for (int64_t byte = 0; byte < bytes_; byte += kLine) {
        __builtin_prefetch(w.row + byte, 0, 2);
      }
    }
    w.rows -= rows;
    count_ -= w.rows == 0;
  }

 private:
  static constexpr int64_t kLine = 64;  // bytes of a cache line

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

// The piece of [begin, end) that is number `part` of `parts`.
struct Range {
  int begin, end;
};

inline Range piece(int begin, int end, int part, int parts) {
  const int64_t count = end - begin;
  return {begin + static_cast<int>(count * part / parts),
          begin + static_cast<int>(count * (part + 1) / parts)};
}

// Whole vectors of lanes, dealt to panels as evenly as they go.
inline int panels_of(int queries) {
  return (queries + kWidth - 1) / kWidth;
}

inline Range panel(int begin, int end, int number, int panels) {
  const Range vectors = piece(0, (end - begin + kLanes - 1) / kLanes, number, panels);
  return {begin + vectors.begin * kLanes, smaller(begin + vectors.end * kLanes, end)};
}

// kLanes rows of kLanes columns as columns; each row first passes through `each`.
template <class Each>
inline void transpose_block(const float* rows, int64_t pitch, const Each& each, float* out,
                            int64_t out_pitch) {
  vfloat block[kLanes];
#pragma GCC unroll 16
  for (int r = 0; r < kLanes; ++r) {
    block[r] = each(load(rows + r * pitch));
  }
  transpose(block);
#pragma GCC unroll 16
  for (int c = 0; c < kLanes; ++c) {
    store(out + c * out_pitch, block[c]);
  }
}

// The transpose of `count` rows, D x width; each row first passes through `each`. Columns after
// `count` are zero.
template <class Each>
inline void transpose_from(const Rows& rows, int count, int D, const Each& each, int width,
                           float* out) {
  for (int i = 0; i < width; i += kLanes) {
    for (int d = 0; d < D; d += kLanes) {
      const int lanes = smaller(kLanes, D - d);
      if (i + kLanes <= count && lanes == kLanes) {
        transpose_block(rows.row(i) + d, rows.pitch, each, out + d * width + i, width);
        continue;
      }
      vfloat block[kLanes];
      for (int r = 0; r < kLanes; ++r) {
        block[r] = i + r < count ? each(load_partial(rows.row(i + r) + d, lanes)) : vfloat{};
      }
      transpose(block);
      for (int c = 0; c < lanes; ++c) {
        store(out + (d + c) * width + i, block[c]);
      }
    }
  }
}

// The transpose of factors of scores, float32 ones times `factor`.
template <Element kind>
inline void transpose_factors(const Rows& rows, int count, int D, float factor, int width,
                              float* out) {
  if constexpr (kind == Element::float32) {
    transpose_from(rows, count, D, [=](vfloat v) { return v * factor; }, width, out);
  } else {
    transpose_from(rows, count, elements<kind>(D), [](vfloat v) { return v; }, width, out);
  }
}

// Columns [column, column + kLanes) of a D x width matrix, each times its lane of `factor`, as
// rows at `pitch`, which is D in whole vectors.
inline void transpose_to(const float* columns, int width, int column, int D, vfloat factor,
                         float* rows, int64_t pitch) {
  for (int d = 0; d < D; d += kLanes) {
    const float* first = columns + d * width + column;
    if (d + kLanes <= D) {
      transpose_block(first, width, [=](vfloat v) { return v * factor; }, rows + d, pitch);
      continue;
    }
    vfloat block[kLanes];
    for (int c = 0; c < kLanes; ++c) {
      block[c] = d + c < D ? load(first + c * width) * factor : vfloat{};
    }
    transpose(block);
    for (int r = 0; r < kLanes; ++r) {
      store(rows + r * pitch + d, block[r]);
    }
  }
}

}  // namespace mlx_esm_kernels::cpu::CPU_TARGET
