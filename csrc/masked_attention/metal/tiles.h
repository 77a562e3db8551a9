// Which tiles the Metal kernels of masked attention use.
#pragma once

#include <string>
#include <utility>
#include <vector>

#include "mlx/mlx.h"

namespace mlx_esm_kernels {

enum class AttentionKernel { fwd, bwd_dq, bwd_dkv };

// "fwd", "bwd_dq" or "bwd_dkv"; std::invalid_argument for others.
AttentionKernel attention_kernel(const std::string& name);

// How a kernel is cut and compiled.
struct AttentionTiles {
  int rows;           // that a threadgroup owns: 16, 32 or 64
  int tile;           // rows that it stages at a time: 8, 16 or 32
  int row_fragments;  // eights of rows that a simdgroup owns: 1 or 2
  bool held;          // of bwd_dkv: keys and values lie in registers, not in threadgroup memory
  bool fenced;        // loads of fragments are not moved across products

  bool operator==(const AttentionTiles&) const = default;
};

// Whether there are Metal kernels for this head dim and dtype.
bool attention_served(int D, mlx::core::Dtype dtype);

// Threadgroup memory that a kernel declares with these tiles.
int attention_threadgroup_bytes(AttentionKernel kernel, int D, mlx::core::Dtype dtype,
                                AttentionTiles tiles);

// The 32-bit registers a lane holds through a kernel's loop, counted from its arrays.
int attention_registers(AttentionKernel kernel, int D, mlx::core::Dtype dtype,
                        AttentionTiles tiles);

// The tiles in force: those set, or else the built-in table's for the GPU's generation.
AttentionTiles attention_tiles(AttentionKernel kernel, int D, mlx::core::Dtype dtype,
                               int generation);

// All tiles that fit threadgroup memory and registers, for a search on the user's machine.
std::vector<AttentionTiles> attention_tile_candidates(AttentionKernel kernel, int D,
                                                      mlx::core::Dtype dtype);

// Replaces the table's entry, on every generation; throws std::invalid_argument for tiles that are
// no candidate. reset: back to the table.
void set_attention_tiles(AttentionKernel kernel, int D, mlx::core::Dtype dtype,
                         AttentionTiles tiles);
void reset_attention_tiles(AttentionKernel kernel, int D, mlx::core::Dtype dtype);

}  // namespace mlx_esm_kernels
