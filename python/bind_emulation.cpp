// The tests' way in: launch plans as Python sees them.
#include "bind_emulation.h"

#include <nanobind/stl/string.h>

#include <memory>
#include <stdexcept>
#include <utility>
#include <variant>
#include <vector>

#include "metal/emulation.h"

namespace nb = nanobind;
namespace ek = mlx_esm_kernels;
using namespace nb::literals;

namespace {

nb::dict as_dict(const ek::metal::BoundLaunch& bound) {
  const ek::metal::Launch& launch = bound.launch;
  nb::list constants, buffers, data;
  for (const auto& constant : launch.function_constants) {
    std::visit([&](auto value) { constants.append(nb::make_tuple(constant.index, value)); },
               constant.value);
  }
  for (const auto& b : bound.buffers) {
    buffers.append(nb::make_tuple(b.slot, b.name, b.address, b.begin, b.end, b.written));
  }
  nb::list bases;
  for (const auto& b : bound.buffers) {
    bases.append(b.base);
  }
  for (const auto& c : launch.constants) {
    data.append(nb::make_tuple(
        c.slot, nb::bytes(reinterpret_cast<const char*>(c.data.data()), c.data.size())));
  }
  nb::dict out;
  out["library"] = launch.source->library;
  out["source"] = launch.source->text;
  out["kernel"] = launch.kernel;
  out["specialized_name"] = ek::metal::specialized_name(launch);
  out["function_constants"] = constants;
  out["buffers"] = buffers;
  out["bases"] = bases;
  out["constants"] = data;
  out["grid"] = nb::make_tuple(launch.grid[0], launch.grid[1], launch.grid[2]);
  out["group"] = nb::make_tuple(launch.group[0], launch.group[1], launch.group[2]);
  out["threadgroup_bytes"] = launch.threadgroup_bytes;
  return out;
}

// Calls Python from MLX's stream thread; what it raises becomes the error of the evaluation.
ek::metal::Executor python_executor(nb::object executor) {
  const auto held = std::make_shared<nb::object>(std::move(executor));
  return [held](const std::vector<ek::metal::BoundLaunch>& launches) {
    const nb::gil_scoped_acquire gil;
    try {
      nb::list plan;
      for (const auto& launch : launches) {
        plan.append(as_dict(launch));
      }
      (*held)(plan);
    } catch (const nb::python_error& error) {
      throw std::runtime_error(error.what());
    }
  };
}

}  // namespace

void bind_emulation(nb::module_& m) {
  m.def(
      "emulate_metal",
      [](nb::object executor, int emulated_generation) {
        ek::metal::emulate(executor.is_none() ? nullptr : python_executor(std::move(executor)),
                           {"Emulated GPU", "emulated", emulated_generation});
      },
      "executor"_a.none(), "generation"_a = 13,
      "For tests: send the launch plans of CPU streams to executor(plan); None ends it.");
}
