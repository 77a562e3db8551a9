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

constexpr int kMaxHeldHeadDim = 96;  // beyond: 128 registers for keys, values and gradients
constexpr int kThreadgroupBytes = 32768;

// A row of the built-in table; the first that fits is taken. 32 rows of a threadgroup are a block
// of the block map, and four simdgroups that share what is staged: with 16, threadgroup memory and
// not the matrix operations would be the limit (bench/metal_model.py). Tiles: the largest of 32,
// 16, 8 that keep a threadgroup within half of its memory, so that two share a core; for bwd_dq and
// bwd_dkv, which stage two arrays, at most 16. Beyond head dim 96 bwd_dkv has its own keys and
// values there too, and in float32 a core to itself. A generation for which other tiles are known
// to be faster gets rows above these.
struct Entry {
  AttentionKernel kernel;
  int from_generation;
  int to_dim;        // head dims up to this one
  int element_size;  // of elements up to this size
  AttentionTiles tiles;
};

constexpr Entry kTable[] = {
    {AttentionKernel::fwd, 0, 96, 4, {32, 32}},     {AttentionKernel::fwd, 0, 128, 2, {32, 32}},
    {AttentionKernel::fwd, 0, 128, 4, {32, 16}},    {AttentionKernel::bwd_dq, 0, 96, 4, {32, 16}},
    {AttentionKernel::bwd_dq, 0, 128, 2, {32, 16}}, {AttentionKernel::bwd_dq, 0, 128, 4, {32, 8}},
    {AttentionKernel::bwd_dkv, 0, 96, 4, {32, 16}}, {AttentionKernel::bwd_dkv, 0, 128, 4, {16, 8}},
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

bool attention_holds_keys(int D) {
  return D <= kMaxHeldHeadDim;
}

int attention_threadgroup_bytes(AttentionKernel kernel, int D, mx::Dtype dtype,
                                AttentionTiles tiles) {
  const int size = element_size(dtype);
  const int row = D * size + kStagedPadding;
  const int ids = tiles.tile * 8;
  switch (kernel) {
    case AttentionKernel::fwd:
      return tiles.tile * row + ids;
    case AttentionKernel::bwd_dq:
      return 2 * tiles.tile * row + ids;
    case AttentionKernel::bwd_dkv:
      return 2 * (tiles.tile + (attention_holds_keys(D) ? 0 : tiles.rows)) * row + ids +
             2 * tiles.tile * 4;
  }
  return 0;
}

int attention_registers(AttentionKernel kernel, int D, AttentionTiles tiles) {
  const int fragments = D / 4;  // two elements for each of D / 8
  const int product = 6;        // the operands and the result of one product
  const int row = 12;           // sums and ids of the row, positions, addresses
  switch (kernel) {
    case AttentionKernel::fwd:
      return 2 * fragments + tiles.tile / 4 + product + row;
    case AttentionKernel::bwd_dq:
      return 3 * fragments + 4 + product + row;
    case AttentionKernel::bwd_dkv:
      return (attention_holds_keys(D) ? 4 : 2) * fragments + 4 + product + row;
  }
  return 0;
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
  for (const int rows : {16, 32, 64}) {
    for (const int tile : {8, 16, 32}) {
      if (attention_threadgroup_bytes(kernel, D, dtype, {rows, tile}) <= kThreadgroupBytes) {
        candidates.push_back({rows, tile});
      }
    }
  }
  return candidates;
}

void set_attention_tiles(AttentionKernel kernel, int D, mx::Dtype dtype, AttentionTiles tiles) {
  const std::vector<AttentionTiles> candidates = attention_tile_candidates(kernel, D, dtype);
  if (std::find(candidates.begin(), candidates.end(), tiles) == candidates.end()) {
    fail("masked_attention", "tiles must be one of the candidates for head dim " +
                                 std::to_string(D) + "; got (" + std::to_string(tiles.rows) + ", " +
                                 std::to_string(tiles.tile) + ").");
  }
  const std::lock_guard lock(set_mutex);
  set_tiles().insert_or_assign(key(kernel, D, dtype), tiles);
}

void reset_attention_tiles(AttentionKernel kernel, int D, mx::Dtype dtype) {
  const std::lock_guard lock(set_mutex);
  set_tiles().erase(key(kernel, D, dtype));
}

}  // namespace mlx_esm_kernels
