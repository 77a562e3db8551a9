// The components of vectors of two, three and four elements.
#pragma once

struct parts {};

// Several to a line, which the formatter would not keep.
// clang-format off

template <class T>
struct fields<T, 2> {
  typename storage<T, 2, (sizeof(T) * 2 > 16)>::type v;
  fields() = default;
  constexpr fields(T a, T b, T c, T d, parts) : v{a, b} {}
  EMU_ONE(x, 0) EMU_ONE(y, 1) EMU_ONE(r, 0) EMU_ONE(g, 1) EMU_SAME2(x, x, 0, 0) EMU_TWO(x, y, 0, 1)
  EMU_TWO(y, x, 1, 0) EMU_SAME2(y, y, 1, 1)
};

template <class T>
struct fields<T, 3> {
  typename storage<T, 3, (sizeof(T) * 3 > 16)>::type v;
  fields() = default;
  constexpr fields(T a, T b, T c, T d, parts) : v{a, b, c} {}
  EMU_ONE(x, 0) EMU_ONE(y, 1) EMU_ONE(z, 2) EMU_ONE(r, 0) EMU_ONE(g, 1) EMU_ONE(b, 2)
  EMU_SAME2(x, x, 0, 0) EMU_TWO(x, y, 0, 1) EMU_TWO(x, z, 0, 2) EMU_TWO(y, x, 1, 0)
  EMU_SAME2(y, y, 1, 1) EMU_TWO(y, z, 1, 2) EMU_TWO(z, x, 2, 0) EMU_TWO(z, y, 2, 1)
  EMU_SAME2(z, z, 2, 2) EMU_SAME3(x, x, x, 0, 0, 0) EMU_SAME3(x, x, y, 0, 0, 1)
  EMU_SAME3(x, x, z, 0, 0, 2) EMU_SAME3(x, y, x, 0, 1, 0) EMU_SAME3(x, y, y, 0, 1, 1)
  EMU_THREE(x, y, z, 0, 1, 2) EMU_SAME3(x, z, x, 0, 2, 0) EMU_THREE(x, z, y, 0, 2, 1)
  EMU_SAME3(x, z, z, 0, 2, 2) EMU_SAME3(y, x, x, 1, 0, 0) EMU_SAME3(y, x, y, 1, 0, 1)
  EMU_THREE(y, x, z, 1, 0, 2) EMU_SAME3(y, y, x, 1, 1, 0) EMU_SAME3(y, y, y, 1, 1, 1)
  EMU_SAME3(y, y, z, 1, 1, 2) EMU_THREE(y, z, x, 1, 2, 0) EMU_SAME3(y, z, y, 1, 2, 1)
  EMU_SAME3(y, z, z, 1, 2, 2) EMU_SAME3(z, x, x, 2, 0, 0) EMU_THREE(z, x, y, 2, 0, 1)
  EMU_SAME3(z, x, z, 2, 0, 2) EMU_THREE(z, y, x, 2, 1, 0) EMU_SAME3(z, y, y, 2, 1, 1)
  EMU_SAME3(z, y, z, 2, 1, 2) EMU_SAME3(z, z, x, 2, 2, 0) EMU_SAME3(z, z, y, 2, 2, 1)
  EMU_SAME3(z, z, z, 2, 2, 2)
};

template <class T>
struct fields<T, 4> {
  typename storage<T, 4, (sizeof(T) * 4 > 16)>::type v;
  fields() = default;
  constexpr fields(T a, T b, T c, T d, parts) : v{a, b, c, d} {}
  EMU_ONE(x, 0) EMU_ONE(y, 1) EMU_ONE(z, 2) EMU_ONE(w, 3) EMU_ONE(r, 0) EMU_ONE(g, 1) EMU_ONE(b, 2)
  EMU_ONE(a, 3) EMU_SAME2(x, x, 0, 0) EMU_TWO(x, y, 0, 1) EMU_TWO(x, z, 0, 2) EMU_TWO(x, w, 0, 3)
  EMU_TWO(y, x, 1, 0) EMU_SAME2(y, y, 1, 1) EMU_TWO(y, z, 1, 2) EMU_TWO(y, w, 1, 3)
  EMU_TWO(z, x, 2, 0) EMU_TWO(z, y, 2, 1) EMU_SAME2(z, z, 2, 2) EMU_TWO(z, w, 2, 3)
  EMU_TWO(w, x, 3, 0) EMU_TWO(w, y, 3, 1) EMU_TWO(w, z, 3, 2) EMU_SAME2(w, w, 3, 3)
  EMU_SAME3(x, x, x, 0, 0, 0) EMU_SAME3(x, x, y, 0, 0, 1) EMU_SAME3(x, x, z, 0, 0, 2)
  EMU_SAME3(x, x, w, 0, 0, 3) EMU_SAME3(x, y, x, 0, 1, 0) EMU_SAME3(x, y, y, 0, 1, 1)
  EMU_THREE(x, y, z, 0, 1, 2) EMU_THREE(x, y, w, 0, 1, 3) EMU_SAME3(x, z, x, 0, 2, 0)
  EMU_THREE(x, z, y, 0, 2, 1) EMU_SAME3(x, z, z, 0, 2, 2) EMU_THREE(x, z, w, 0, 2, 3)
  EMU_SAME3(x, w, x, 0, 3, 0) EMU_THREE(x, w, y, 0, 3, 1) EMU_THREE(x, w, z, 0, 3, 2)
  EMU_SAME3(x, w, w, 0, 3, 3) EMU_SAME3(y, x, x, 1, 0, 0) EMU_SAME3(y, x, y, 1, 0, 1)
  EMU_THREE(y, x, z, 1, 0, 2) EMU_THREE(y, x, w, 1, 0, 3) EMU_SAME3(y, y, x, 1, 1, 0)
  EMU_SAME3(y, y, y, 1, 1, 1) EMU_SAME3(y, y, z, 1, 1, 2) EMU_SAME3(y, y, w, 1, 1, 3)
  EMU_THREE(y, z, x, 1, 2, 0) EMU_SAME3(y, z, y, 1, 2, 1) EMU_SAME3(y, z, z, 1, 2, 2)
  EMU_THREE(y, z, w, 1, 2, 3) EMU_THREE(y, w, x, 1, 3, 0) EMU_SAME3(y, w, y, 1, 3, 1)
  EMU_THREE(y, w, z, 1, 3, 2) EMU_SAME3(y, w, w, 1, 3, 3) EMU_SAME3(z, x, x, 2, 0, 0)
  EMU_THREE(z, x, y, 2, 0, 1) EMU_SAME3(z, x, z, 2, 0, 2) EMU_THREE(z, x, w, 2, 0, 3)
  EMU_THREE(z, y, x, 2, 1, 0) EMU_SAME3(z, y, y, 2, 1, 1) EMU_SAME3(z, y, z, 2, 1, 2)
  EMU_THREE(z, y, w, 2, 1, 3) EMU_SAME3(z, z, x, 2, 2, 0) EMU_SAME3(z, z, y, 2, 2, 1)
  EMU_SAME3(z, z, z, 2, 2, 2) EMU_SAME3(z, z, w, 2, 2, 3) EMU_THREE(z, w, x, 2, 3, 0)
  EMU_THREE(z, w, y, 2, 3, 1) EMU_SAME3(z, w, z, 2, 3, 2) EMU_SAME3(z, w, w, 2, 3, 3)
  EMU_SAME3(w, x, x, 3, 0, 0) EMU_THREE(w, x, y, 3, 0, 1) EMU_THREE(w, x, z, 3, 0, 2)
  EMU_SAME3(w, x, w, 3, 0, 3) EMU_THREE(w, y, x, 3, 1, 0) EMU_SAME3(w, y, y, 3, 1, 1)
  EMU_THREE(w, y, z, 3, 1, 2) EMU_SAME3(w, y, w, 3, 1, 3) EMU_THREE(w, z, x, 3, 2, 0)
  EMU_THREE(w, z, y, 3, 2, 1) EMU_SAME3(w, z, z, 3, 2, 2) EMU_SAME3(w, z, w, 3, 2, 3)
  EMU_SAME3(w, w, x, 3, 3, 0) EMU_SAME3(w, w, y, 3, 3, 1) EMU_SAME3(w, w, z, 3, 3, 2)
  EMU_SAME3(w, w, w, 3, 3, 3) EMU_FOUR(x, y, z, w, 0, 1, 2, 3) EMU_FOUR(x, y, w, z, 0, 1, 3, 2)
  EMU_FOUR(x, z, y, w, 0, 2, 1, 3) EMU_FOUR(x, z, w, y, 0, 2, 3, 1)
  EMU_FOUR(x, w, y, z, 0, 3, 1, 2) EMU_FOUR(x, w, z, y, 0, 3, 2, 1)
  EMU_FOUR(y, x, z, w, 1, 0, 2, 3) EMU_FOUR(y, x, w, z, 1, 0, 3, 2)
  EMU_FOUR(y, z, x, w, 1, 2, 0, 3) EMU_FOUR(y, z, w, x, 1, 2, 3, 0)
  EMU_FOUR(y, w, x, z, 1, 3, 0, 2) EMU_FOUR(y, w, z, x, 1, 3, 2, 0)
  EMU_FOUR(z, x, y, w, 2, 0, 1, 3) EMU_FOUR(z, x, w, y, 2, 0, 3, 1)
  EMU_FOUR(z, y, x, w, 2, 1, 0, 3) EMU_FOUR(z, y, w, x, 2, 1, 3, 0)
  EMU_FOUR(z, w, x, y, 2, 3, 0, 1) EMU_FOUR(z, w, y, x, 2, 3, 1, 0)
  EMU_FOUR(w, x, y, z, 3, 0, 1, 2) EMU_FOUR(w, x, z, y, 3, 0, 2, 1)
  EMU_FOUR(w, y, x, z, 3, 1, 0, 2) EMU_FOUR(w, y, z, x, 3, 1, 2, 0)
  EMU_FOUR(w, z, x, y, 3, 2, 0, 1) EMU_FOUR(w, z, y, x, 3, 2, 1, 0)
};
// clang-format on
