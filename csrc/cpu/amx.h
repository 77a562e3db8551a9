// Products in the tile registers of AMX, each 16 rows of 64 bytes. Compiled for the instruction set
// that has them.
#pragma once

#include "cpu/packed_product.h"

namespace mlx_esm_kernels::cpu::CPU_TARGET {

constexpr int64_t kAmxRows = 16;
constexpr int64_t kAmxRowBytes = 64;
constexpr int64_t kAmxStep = kPackedColumns * 4;  // bytes of a panel: 4 of each column

// Tiles 0 to 3 are two by two of C; 4 and 5 are of A, the upper and the lower; 6 and 7 are of B.
struct alignas(64) AmxShapes {
  uint8_t palette = 1, start_row = 0, reserved[14] = {};
  uint16_t row_bytes[16] = {};
  uint8_t rows[16] = {};

  // For so many rows of C.
  explicit AmxShapes(int64_t count) {
    const auto upper = static_cast<uint8_t>(count < kAmxRows ? count : kAmxRows);
    const auto lower = static_cast<uint8_t>(count - upper);
    const uint8_t rows_of[8] = {upper, upper, lower, lower, upper, lower, kAmxRows, kAmxRows};
    for (int tile = 0; tile < 8; ++tile) {
      rows[tile] = rows_of[tile];
      row_bytes[tile] = rows_of[tile] == 0 ? 0 : kAmxRowBytes;
    }
  }
};
static_assert(sizeof(AmxShapes) == 64);

// A struct of which add<i>() adds the product of its tiles of A and B to tile i. The intrinsics
// want the tiles' numbers as they are written, and may be macros themselves.
#define MLX_ESM_KERNELS_TILE_PRODUCTS(Name, instruction) \
  struct Name {                                          \
    template <int tile>                                  \
    static void add() {                                  \
      if constexpr (tile == 0) {                         \
        instruction(0, 4, 6);                            \
      } else if constexpr (tile == 1) {                  \
        instruction(1, 4, 7);                            \
      } else if constexpr (tile == 2) {                  \
        instruction(2, 5, 6);                            \
      } else {                                           \
        instruction(3, 5, 7);                            \
      }                                                  \
    }                                                    \
  };

// Up to 32 rows and 32 columns. Products is one of MLX_ESM_KERNELS_TILE_PRODUCTS.
template <class Products, bool lower>
inline void multiply_block(const PackedProduct& p, int64_t row, int64_t column) {
  const uint8_t* a = bytes_at(p.a, row * p.pitch);
  const uint8_t* below = bytes_at(a, kAmxRows * p.pitch);
  const uint8_t* b = bytes_at(p.b, column * 4);
  uint8_t* c = static_cast<uint8_t*>(p.c) + row * kPackedPitch + column * 4;
  uint8_t* c_below = c + kAmxRows * kPackedPitch;
  if (p.accumulate) {
    _tile_loadd(0, c, kPackedPitch);
    _tile_loadd(1, c + kAmxRowBytes, kPackedPitch);
    if constexpr (lower) {
      _tile_loadd(2, c_below, kPackedPitch);
      _tile_loadd(3, c_below + kAmxRowBytes, kPackedPitch);
    }
  } else {
    _tile_zero(0);
    _tile_zero(1);
    if constexpr (lower) {
      _tile_zero(2);
      _tile_zero(3);
    }
  }
  for (int64_t k = 0; k < p.bytes; k += kAmxRowBytes, b += kAmxRows * kAmxStep) {
    _tile_loadd(4, a + k, p.pitch);
    _tile_loadd(6, b, kAmxStep);
    Products::template add<0>();
    _tile_loadd(7, b + kAmxRowBytes, kAmxStep);
    Products::template add<1>();
    if constexpr (lower) {
      _tile_loadd(5, below + k, p.pitch);
      Products::template add<2>();
      Products::template add<3>();
    }
  }
  _tile_stored(0, c, kPackedPitch);
  _tile_stored(1, c + kAmxRowBytes, kPackedPitch);
  if constexpr (lower) {
    _tile_stored(2, c_below, kPackedPitch);
    _tile_stored(3, c_below + kAmxRowBytes, kPackedPitch);
  }
}

// `bytes` is a multiple of kAmxRowBytes.
template <class Products>
inline void multiply_with_amx(const PackedProduct& p) {
  int64_t shaped_for = 0;
  for (int64_t row = 0; row < p.count; row += 2 * kAmxRows) {
    const int64_t count = p.count - row < 2 * kAmxRows ? p.count - row : 2 * kAmxRows;
    if (count != shaped_for) {
      const AmxShapes shapes(count);
      // GCC's intrinsic tells of 8 bytes of them alone.
      __asm__ volatile("" : : "r"(&shapes) : "memory");
      _tile_loadconfig(&shapes);
      shaped_for = count;
    }
    for (int64_t column = 0; column < p.columns; column += 32) {
      if (count > kAmxRows) {
        multiply_block<Products, true>(p, row, column);
      } else {
        multiply_block<Products, false>(p, row, column);
      }
    }
  }
  _tile_release();
}

}  // namespace mlx_esm_kernels::cpu::CPU_TARGET
