#include "masked_attention/metal/tiles.h"

#include <algorithm>
#include <map>
#include <mutex>
#include <stdexcept>
#include <tuple>

#include "graph/checks.h"
#include "masked_attention/metal/params.h"

namespace mlx_esm_kernels {

namespace mx = mlx::core;

namespace {

constexpr int kThreadgroupBytes = 32768;
constexpr int kMostRegisters = 128;  // of 32 bits, that a lane has on every chip
constexpr int kAny = 128;            // head dim

// A row of the built-in table; the first that fits is taken. Nothing of it was timed: it follows
// from what the kernels hold and load.
//   rows           32 are a block of the block map; 16 would be staged for too few products. 64
//                  where two fragments of rows would leave two simdgroups to share what is staged,
//                  and a core's threadgroup memory too few of them.
//   tile           the largest of 32, 16, 8 that keeps a threadgroup within half of its memory, so
//                  that two share a core; for bwd_dq and bwd_dkv, which stage two arrays, at
//                  most 16.
//   row_fragments  2 halves what is loaded for a product, where a lane needs at most 100 registers
//                  for it, or in forward 110 from M3 (generation 15) on, which hands them out as
//                  they are used.
//   held           up to 100 registers, or 120 from M3 on; else bwd_dkv has its keys and values in
//                  threadgroup memory as well, and in float32 a core to itself.
struct Entry {
  AttentionKernel kernel;
  int from_generation;
  int to_dim;        // head dims up to this one
  int element_size;  // of elements up to this size
  AttentionTiles tiles;
};

constexpr auto fwd = AttentionKernel::fwd, bwd_dq = AttentionKernel::bwd_dq,
               bwd_dkv = AttentionKernel::bwd_dkv;

constexpr Entry kTable[] = {
    {fwd, 0, 32, 4, {32, 32, 2, true, false}},
    {fwd, 0, 80, 2, {64, 32, 2, true, false}},
    {fwd, 15, 64, 4, {64, 32, 2, true, false}},
    {fwd, 0, 96, 4, {32, 32, 1, true, false}},
    {fwd, 0, kAny, 2, {32, 32, 1, true, false}},
    {fwd, 0, kAny, 4, {32, 16, 1, true, false}},
    {bwd_dq, 0, 40, 4, {32, 16, 2, true, false}},
    {bwd_dq, 0, 64, 2, {64, 16, 2, true, false}},
    {bwd_dq, 0, 96, 4, {32, 16, 1, true, false}},
    {bwd_dq, 0, kAny, 2, {32, 16, 1, true, false}},
    {bwd_dq, 0, kAny, 4, {32, 8, 1, true, false}},
    {bwd_dkv, 0, 32, 4, {32, 16, 2, true, false}},
    {bwd_dkv, 0, 72, 4, {32, 16, 1, true, false}},
    {bwd_dkv, 0, 96, 2, {32, 16, 1, true, false}},
    {bwd_dkv, 15, 96, 4, {32, 16, 1, true, false}},
    {bwd_dkv, 15, kAny, 2, {32, 16, 1, true, false}},
    {bwd_dkv, 0, kAny, 4, {16, 8, 1, false, false}},
};

using Key = std::tuple<AttentionKernel, int, int>;  // kernel, D, the dtype's value

Key key(AttentionKernel kernel, int D, mx::Dtype dtype) {
  return {kernel, D, static_cast<int>(dtype.val())};
}

std::mutex set_mutex;

std::map<Key, AttentionTiles>& set_tiles() {
  static std::map<Key, AttentionTiles> tiles;
  return tiles;
}

int element_size(mx::Dtype dtype) {
  return dtype == mx::float32 ? 4 : 2;
}

}  // namespace

AttentionKernel attention_kernel(const std::string& name) {
  if (name == "fwd") {
    return AttentionKernel::fwd;
  }
  if (name == "bwd_dq") {
    return AttentionKernel::bwd_dq;
  }
  if (name == "bwd_dkv") {
    return AttentionKernel::bwd_dkv;
  }
  fail("masked_attention", "kernel must be fwd, bwd_dq or bwd_dkv; got " + name + ".");
}

bool attention_served(int D, mx::Dtype dtype) {
  const bool floating = dtype == mx::float32 || dtype == mx::float16 || dtype == mx::bfloat16;
  return floating && D > 0 && D % kFragment == 0 && D <= kMaxHeadDim;
}

int attention_threadgroup_bytes(AttentionKernel kernel, int D, mx::Dtype dtype,
                                AttentionTiles tiles) {
  const int size = element_size(dtype);
  const int row = D * size + kStagedPadding;
  const int ids = (tiles.tile + tiles.rows) * 8;
  switch (kernel) {
    case AttentionKernel::fwd:
      return tiles.tile * row + ids;
    case AttentionKernel::bwd_dq:
      return 2 * tiles.tile * row + ids;
    case AttentionKernel::bwd_dkv:
      return 2 * (tiles.tile + (tiles.held ? 0 : tiles.rows)) * row + ids + 2 * tiles.tile * 4;
  }
  return 0;
}

int attention_registers(AttentionKernel kernel, int D, mx::Dtype dtype, AttentionTiles tiles) {
  const int sums = D / 4;                             // two float32 for each of D / 8 fragments
  const int inputs = sums * element_size(dtype) / 4;  // two elements for each
  const int common = 12;  // operands of a product that are not held, positions, addresses
  int of_rows = 0;        // for each eight rows, their sums and ids among them
  switch (kernel) {
    case AttentionKernel::fwd:
      of_rows = inputs + sums + tiles.tile / 4 + 6;
      break;
    case AttentionKernel::bwd_dq:
      of_rows = 2 * inputs + sums + 4 + 6;
      break;
    case AttentionKernel::bwd_dkv:
      of_rows = (tiles.held ? 2 * inputs : 0) + 2 * sums + 4 + 6;
      break;
  }
  return tiles.row_fragments * of_rows + common;
}

AttentionTiles attention_tiles(AttentionKernel kernel, int D, mx::Dtype dtype, int generation) {
  {
    const std::lock_guard lock(set_mutex);
    const auto found = set_tiles().find(key(kernel, D, dtype));
    if (found != set_tiles().end()) {
      return found->second;
    }
  }
  for (const Entry& entry : kTable) {
    if (entry.kernel == kernel && generation >= entry.from_generation && D <= entry.to_dim &&
        element_size(dtype) <= entry.element_size) {
      return entry.tiles;
    }
  }
  throw std::logic_error("[masked_attention] no tiles for head dim " + std::to_string(D) + ".");
}

std::vector<AttentionTiles> attention_tile_candidates(AttentionKernel kernel, int D,
                                                      mx::Dtype dtype) {
  std::vector<AttentionTiles> candidates;
  const auto add_if_it_fits = [&](AttentionTiles tiles) {
    // One simdgroup alone is no threadgroup of ours (common.metal).
    if (tiles.rows > kFragment * tiles.row_fragments &&
        attention_threadgroup_bytes(kernel, D, dtype, tiles) <= kThreadgroupBytes &&
        attention_registers(kernel, D, dtype, tiles) <= kMostRegisters) {
      candidates.push_back(tiles);
    }
  };
  for (const int rows : {16, 32, 64}) {
    for (const int tile : {8, 16, 32}) {
      for (const int row_fragments : {1, 2}) {
        for (const bool fenced : {false, true}) {
          add_if_it_fits({rows, tile, row_fragments, true, fenced});
          if (kernel == AttentionKernel::bwd_dkv) {
            add_if_it_fits({rows, tile, row_fragments, false, fenced});
          }
        }
      }
    }
  }
  return candidates;
}

void set_attention_tiles(AttentionKernel kernel, int D, mx::Dtype dtype, AttentionTiles tiles) {
  const std::vector<AttentionTiles> candidates = attention_tile_candidates(kernel, D, dtype);
  if (std::find(candidates.begin(), candidates.end(), tiles) == candidates.end()) {
    fail("masked_attention",
         "tiles must be one of the candidates for head dim " + std::to_string(D) + "; got (" +
             std::to_string(tiles.rows) + ", " + std::to_string(tiles.tile) + ", " +
             std::to_string(tiles.row_fragments) + ", " + (tiles.held ? "True, " : "False, ") +
             (tiles.fenced ? "True)." : "False)."));
  }
  const std::lock_guard lock(set_mutex);
  set_tiles().insert_or_assign(key(kernel, D, dtype), tiles);
}

void reset_attention_tiles(AttentionKernel kernel, int D, mx::Dtype dtype) {
  const std::lock_guard lock(set_mutex);
  set_tiles().erase(key(kernel, D, dtype));
}

}  // namespace mlx_esm_kernels
