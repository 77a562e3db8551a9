// For tests: plans of CPU streams go to an executor, not to the CPU's kernels.
#pragma once

#include <cstdint>
#include <functional>
#include <optional>
#include <string>
#include <vector>

#include "metal/bindings.h"
#include "metal/chip.h"
#include "metal/plan.h"
#include "mlx/mlx.h"

namespace mlx_esm_kernels::metal {

namespace mx = mlx::core;

struct BoundBuffer {
  int slot;
  std::string name;  // "input 0", "output 1", "temporary 2"
  uintptr_t address;
  uintptr_t begin, end;  // the bytes that belong to the array
  uintptr_t base;        // of the allocation, which Metal aligns to a page
  bool written;
};

struct BoundLaunch {
  Launch launch;
  std::vector<BoundBuffer> buffers;
};

using Executor = std::function<void(const std::vector<BoundLaunch>&)>;

// Without an executor, CPU streams run on the CPU again.
void emulate(Executor executor, const Chip& chip);

// The chip that plans are made for while there is an executor.
std::optional<Chip> emulated_chip();

// Gives the plan's launches to the executor, in the order of the stream.
void execute_emulated(const Plan& plan, const Bindings& bindings, mx::Stream s);

}  // namespace mlx_esm_kernels::metal
