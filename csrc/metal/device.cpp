#include "metal/device.h"

#include "metal/bindings.h"
#include "metal/emulation.h"
#ifdef MLX_ESM_KERNELS_METAL
#include "metal/encode.h"
#endif

namespace mlx_esm_kernels::metal {

namespace {

Bindings allocate(const Plan& plan, const std::vector<mx::array>& inputs,
                  const std::vector<mx::array>& outputs) {
  Bindings bindings{inputs, outputs, {}};
  for (const int64_t bytes : plan.temporaries) {
    mx::array x({static_cast<int>(bytes / 4)}, mx::uint32, nullptr, {});
    x.set_data(mx::allocator::malloc(bytes));
    bindings.temporaries.push_back(std::move(x));
  }
  return bindings;
}

}  // namespace

bool runs_on(mx::Stream s) {
  if (s.device == mx::Device::gpu) {
#ifdef MLX_ESM_KERNELS_METAL
    return true;
#else
    return false;
#endif
  }
  return emulated_chip().has_value();
}

std::optional<Chip> current_chip() {
  if (const auto chip = emulated_chip()) {
    return chip;
  }
#ifdef MLX_ESM_KERNELS_METAL
  if (mx::is_available(mx::Device::gpu)) {
    return metal::chip();
  }
#endif
  return std::nullopt;
}

void execute(const Plan& plan, const std::vector<mx::array>& inputs,
             const std::vector<mx::array>& outputs, mx::Stream s) {
  const Bindings bindings = allocate(plan, inputs, outputs);
#ifdef MLX_ESM_KERNELS_METAL
  if (s.device == mx::Device::gpu) {
    encode(plan, bindings, s);
    return;
  }
#endif
  execute_emulated(plan, bindings, s);
}

}  // namespace mlx_esm_kernels::metal
