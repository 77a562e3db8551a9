#include "metal/emulation.h"

#include <memory>
#include <stdexcept>

#include "mlx/backend/cpu/encoder.h"

namespace mlx_esm_kernels::metal {

namespace {

struct Emulated {
  Executor executor;
  Chip chip;
};

std::shared_ptr<const Emulated>& emulated() {
  // Never destroyed: an executor may hold a Python object, and Python ends before statics do.
  static auto& current = *new std::shared_ptr<const Emulated>;
  return current;
}

const char* role_name(Buffer::Role role) {
  return role == Buffer::Role::input    ? "input "
         : role == Buffer::Role::output ? "output "
                                        : "temporary ";
}

BoundBuffer bind(const Buffer& buffer, const mx::array& x) {
  int64_t low = 0, high = 0;
  for (int i = 0; i < static_cast<int>(x.ndim()); ++i) {
    const int64_t reach = (x.shape(i) - 1) * x.strides()[i];
    (reach < 0 ? low : high) += reach;
  }
  const auto size = static_cast<int64_t>(x.itemsize());
  const auto address = reinterpret_cast<uintptr_t>(x.data<char>());
  return {buffer.slot,
          role_name(buffer.role) + std::to_string(buffer.index),
          address,
          address + low * size,
          address + (high + 1) * size,
          address - x.offset(),
          buffer.written};
}

}  // namespace

void emulate(Executor executor, const Chip& chip) {
  emulated() = executor ? std::make_shared<Emulated>(Emulated{std::move(executor), chip}) : nullptr;
}

std::optional<Chip> emulated_chip() {
  const auto device = emulated();
  return device == nullptr ? std::nullopt : std::optional(device->chip);
}

void execute_emulated(const Plan& plan, const Bindings& bindings, mx::Stream s) {
  const auto device = emulated();
  if (device == nullptr) {
    throw std::runtime_error("[metal] a launch plan came to a CPU stream; nothing there runs it.");
  }
  std::vector<BoundLaunch> launches;
  for (const Launch& launch : plan.launches) {
    BoundLaunch bound{launch, {}};
    for (const Buffer& buffer : launch.buffers) {
      bound.buffers.push_back(bind(buffer, bindings.at(buffer)));
    }
    launches.push_back(std::move(bound));
  }
  mx::cpu::get_command_encoder(s).dispatch(
      [device, launches, temporaries = bindings.temporaries] { device->executor(launches); });
}

}  // namespace mlx_esm_kernels::metal
