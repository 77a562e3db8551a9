// A launch plan: all that a GPU is told to run an op, as plain data. It is computed without a GPU,
// so that what a Mac executes can be read, checked and run elsewhere.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <string>
#include <variant>
#include <vector>

#include "metal/sources.h"

namespace mlx_esm_kernels::metal {

// A value for a [[function_constant(index)]] of the source.
struct FunctionConstant {
  int index;
  std::variant<bool, int32_t, float> value;
};

// An array bound to a [[buffer(slot)]].
struct Buffer {
  enum class Role { input, output, temporary };

  int slot;
  Role role;
  int index;  // among the primitive's inputs or outputs, or the plan's temporaries
  bool written = false;
};

// A struct that the encoder copies into a [[buffer(slot)]].
struct Constants {
  int slot;
  std::vector<std::byte> data;
};

struct Launch {
  const Source* source;  // what the Metal compiler gets; kept for the process
  std::string kernel;    // the function in it
  std::vector<FunctionConstant> function_constants;
  std::vector<Buffer> buffers;
  std::vector<Constants> constants;
  std::array<int64_t, 3> grid;    // threadgroups
  std::array<int64_t, 3> group;   // threads of each
  int64_t threadgroup_bytes = 0;  // that the kernel declares for itself
};

// Names the kernel as its function constants make it: MLX keeps a library's compiled kernels by
// this alone. Without constants it is the kernel's own name, as Metal wants it of a function that
// is not specialised.
std::string specialized_name(const Launch& launch);

struct Plan {
  std::vector<int64_t> temporaries;  // bytes of each, a multiple of 4
  std::vector<Launch> launches;      // one after another
};

// A part of a grid: where it begins, and its threadgroups along each axis.
struct GridPart {
  std::array<int64_t, 3> first, size;
};

// Cuts a grid, along z if that is enough, then y, then x, into parts of at most `most`
// threadgroups.
std::vector<GridPart> parts_of(const std::array<int64_t, 3>& grid, int64_t most);

// Binds a struct that host and kernel share.
template <class Params>
Constants constants(int slot, const Params& params) {
  Constants bound{slot, std::vector<std::byte>(sizeof(Params))};
  std::memcpy(bound.data.data(), &params, sizeof(Params));
  return bound;
}

}  // namespace mlx_esm_kernels::metal
