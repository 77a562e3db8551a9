// The tile instructions of AMX as functions, in the place of the compiler's, so that code for them
// runs on any x86-64. What they do is that of Intel's manual (Intel 64 and IA-32 Architectures
// Software Developer's Manual, volume 2: LDTILECFG, TILELOADD, TDPBF16PS, TDPBUSD); what would be
// a fault there ends the program. Included before all else in what is compiled for it.
#pragma once

#include <immintrin.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>

#undef _tile_loadd
#undef _tile_stored
#undef _tile_zero
#undef _tile_dpbf16ps
#undef _tile_dpbusd
#define __AMX_TILE__ 1
#define __AMX_BF16__ 1
#define __AMX_INT8__ 1
#define _tile_loadconfig emulated_amx::configure
#define _tile_release emulated_amx::release
#define _tile_loadd emulated_amx::load
#define _tile_stored emulated_amx::store
#define _tile_zero emulated_amx::zero
#define _tile_dpbf16ps emulated_amx::multiply_bfloat16
#define _tile_dpbusd emulated_amx::multiply_bytes

namespace emulated_amx {

struct Tile {
  int rows = 0, row_bytes = 0;
  alignas(64) uint8_t bytes[16][64] = {};
};

inline thread_local Tile tiles[8];
inline thread_local bool configured = false;

inline void require(bool held, const char* what) {
  if (!held) {
    fprintf(stderr, "emulated AMX: %s\n", what);
    abort();
  }
}

inline Tile& in_use(int tile) {
  require(configured, "a tile is used before its configuration is loaded");
  require(tile >= 0 && tile < 8 && tiles[tile].rows > 0, "a tile is used that has no rows");
  return tiles[tile];
}

inline void configure(const void* p) {
  const auto* at = static_cast<const uint8_t*>(p);
  require(at[0] == 1 && at[1] == 0, "the palette is not 1, or the start row is not 0");
  for (int i = 2; i < 16; ++i) {
    require(at[i] == 0, "reserved bytes are not 0");
  }
  for (int i = 0; i < 16; ++i) {
    uint16_t row_bytes;
    __builtin_memcpy(&row_bytes, at + 16 + 2 * i, sizeof row_bytes);
    const int rows = at[48 + i];
    require(rows <= 16 && row_bytes <= 64, "a tile is larger than 16 rows of 64 bytes");
    require((rows == 0) == (row_bytes == 0), "a tile has rows or columns alone");
    require(i < 8 || rows == 0, "there are 8 tiles");
    if (i < 8) {
      tiles[i] = Tile{};
      tiles[i].rows = rows;
      tiles[i].row_bytes = row_bytes;
    }
  }
  configured = true;
}

inline void release() {
  configured = false;
}

inline void load(int tile, const void* p, int64_t pitch) {
  Tile& t = in_use(tile);
  for (int row = 0; row < t.rows; ++row) {
    __builtin_memcpy(t.bytes[row], static_cast<const uint8_t*>(p) + row * pitch, t.row_bytes);
  }
}

inline void store(int tile, void* p, int64_t pitch) {
  const Tile& t = in_use(tile);
  for (int row = 0; row < t.rows; ++row) {
    __builtin_memcpy(static_cast<uint8_t*>(p) + row * pitch, t.bytes[row], t.row_bytes);
  }
}

inline void zero(int tile) {
  __builtin_memset(in_use(tile).bytes, 0, sizeof(Tile::bytes));
}

template <class T>
T number(const Tile& t, int row, int index) {
  T value;
  __builtin_memcpy(&value, t.bytes[row] + index * sizeof(T), sizeof(T));
  return value;
}

inline void require_shapes(const Tile& c, const Tile& a, const Tile& b) {
  require(a.rows == c.rows, "A has not as many rows as C");
  require(b.row_bytes == c.row_bytes, "B has not as many columns as C");
  require(b.rows * 4 == a.row_bytes, "B has not as many rows as A has columns");
}

// A denormal counts as 0, as a number and as a result.
inline float flushed(float x) {
  uint32_t bits;
  __builtin_memcpy(&bits, &x, sizeof bits);
  bits = (bits & 0x7f800000u) == 0 ? bits & 0x80000000u : bits;
  __builtin_memcpy(&x, &bits, sizeof x);
  return x;
}

inline float bfloat16(const Tile& t, int row, int index) {
  const uint32_t bits = static_cast<uint32_t>(number<uint16_t>(t, row, index)) << 16;
  float x;
  __builtin_memcpy(&x, &bits, sizeof x);
  return flushed(x);
}

// The first and the second numbers of all pairs are added up apart from one another.
inline void multiply_bfloat16(int to, int left, int right) {
  Tile& c = in_use(to);
  const Tile &a = in_use(left), &b = in_use(right);
  require_shapes(c, a, b);
  for (int m = 0; m < c.rows; ++m) {
    for (int n = 0; n < c.row_bytes / 4; ++n) {
      float sums[2] = {0, 0};
      for (int k = 0; k < 2 * b.rows; ++k) {
        const float product = bfloat16(a, m, k) * bfloat16(b, k / 2, 2 * n + k % 2);
        sums[k % 2] = flushed(sums[k % 2] + product);
      }
      const float sum = flushed(number<float>(c, m, n) + flushed(sums[0] + sums[1]));
      __builtin_memcpy(c.bytes[m] + 4 * n, &sum, sizeof sum);
    }
  }
}

inline void multiply_bytes(int to, int left, int right) {
  Tile& c = in_use(to);
  const Tile &a = in_use(left), &b = in_use(right);
  require_shapes(c, a, b);
  for (int m = 0; m < c.rows; ++m) {
    for (int n = 0; n < c.row_bytes / 4; ++n) {
      int32_t sum = number<int32_t>(c, m, n);
      for (int k = 0; k < 4 * b.rows; ++k) {
        sum += number<uint8_t>(a, m, k) * number<int8_t>(b, k / 4, 4 * n + k % 4);
      }
      __builtin_memcpy(c.bytes[m] + 4 * n, &sum, sizeof sum);
    }
  }
}

}  // namespace emulated_amx
