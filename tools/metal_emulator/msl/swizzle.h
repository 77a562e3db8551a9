// The components of vectors by name, as properties: each has a reader, and a
// writer where no component comes twice.
#pragma once

#define EMU_ONE(a, i) \
  T get_##a() const { \
    return T(v[i]);   \
  }                   \
  void put_##a(T t) { \
    v[i] = t;         \
  }                   \
  __declspec(property(get = get_##a, put = put_##a)) T a;

#define EMU_READ2(a, b, i, j)           \
  vec<T, 2> get_##a##b() const {        \
    return vec<T, 2>(T(v[i]), T(v[j])); \
  }
#define EMU_READ3(a, b, c, i, j, k)              \
  vec<T, 3> get_##a##b##c() const {              \
    return vec<T, 3>(T(v[i]), T(v[j]), T(v[k])); \
  }
#define EMU_READ4(a, b, c, d, i, j, k, l)                 \
  vec<T, 4> get_##a##b##c##d() const {                    \
    return vec<T, 4>(T(v[i]), T(v[j]), T(v[k]), T(v[l])); \
  }

#define EMU_SAME2(a, b, i, j) \
  EMU_READ2(a, b, i, j) __declspec(property(get = get_##a##b)) vec<T, 2> a##b;
#define EMU_TWO(a, b, i, j)      \
  EMU_READ2(a, b, i, j)          \
  void put_##a##b(vec<T, 2> t) { \
    v[i] = t.v[0];               \
    v[j] = t.v[1];               \
  }                              \
  __declspec(property(get = get_##a##b, put = put_##a##b)) vec<T, 2> a##b;
#define EMU_SAME3(a, b, c, i, j, k) \
  EMU_READ3(a, b, c, i, j, k)       \
  __declspec(property(get = get_##a##b##c)) vec<T, 3> a##b##c;
#define EMU_THREE(a, b, c, i, j, k) \
  EMU_READ3(a, b, c, i, j, k)       \
  void put_##a##b##c(vec<T, 3> t) { \
    v[i] = t.v[0];                  \
    v[j] = t.v[1];                  \
    v[k] = t.v[2];                  \
  }                                 \
  __declspec(property(get = get_##a##b##c, put = put_##a##b##c)) vec<T, 3> a##b##c;
#define EMU_FOUR(a, b, c, d, i, j, k, l) \
  EMU_READ4(a, b, c, d, i, j, k, l)      \
  void put_##a##b##c##d(vec<T, 4> t) {   \
    v[i] = t.v[0];                       \
    v[j] = t.v[1];                       \
    v[k] = t.v[2];                       \
    v[l] = t.v[3];                       \
  }                                      \
  __declspec(property(get = get_##a##b##c##d, put = put_##a##b##c##d)) vec<T, 4> a##b##c##d;
