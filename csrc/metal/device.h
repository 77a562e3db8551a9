// Where launch plans run: on MLX's Metal device, or on what stands for one in tests.
#pragma once

#include <functional>
#include <optional>
#include <string>
#include <vector>

#include "metal/chip.h"
#include "metal/plan.h"
#include "mlx/mlx.h"

namespace mlx_esm_kernels::metal {

namespace mx = mlx::core;

// Whether work on this stream becomes launch plans.
bool runs_on(mx::Stream s);

// The GPU that plans are made for; nothing where there is none.
std::optional<Chip> current_chip();

// Runs a plan of a primitive whose outputs are allocated.
void run(const Plan& plan, const std::vector<mx::array>& inputs,
         const std::vector<mx::array>& outputs, mx::Stream s);

// ---- For tests: plans of CPU streams go to an executor, not to the CPU's kernels --

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

}  // namespace mlx_esm_kernels::metal
