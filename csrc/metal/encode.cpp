#include "metal/encode.h"

#include <array>
#include <stdexcept>
#include <string>
#include <variant>

#include "mlx/backend/metal/device.h"

namespace mlx_esm_kernels::metal {

namespace mx = mlx::core;

namespace {

std::string text_of(const char* property) {
  const auto& info = mx::device_info(mx::Device::gpu);
  const auto found = info.find(property);
  const auto* text = found == info.end() ? nullptr : std::get_if<std::string>(&found->second);
  return text == nullptr ? "unknown" : *text;
}

MTL::DataType type_of(const FunctionConstant& constant) {
  return std::holds_alternative<bool>(constant.value)      ? MTL::DataTypeBool
         : std::holds_alternative<int32_t>(constant.value) ? MTL::DataTypeInt
                                                           : MTL::DataTypeFloat;
}

const void* address_of(const FunctionConstant& constant) {
  return std::visit([](const auto& value) -> const void* { return &value; }, constant.value);
}

// The kernel, compiled at its first use. MLX keeps kernels by their names within a library.
MTL::ComputePipelineState* kernel_of(mx::metal::Device& device, const Launch& launch) {
  MTL::Library* library =
      device.get_library(launch.source->library, [&launch] { return launch.source->text; });
  mx::metal::MTLFCList constants;
  for (const FunctionConstant& constant : launch.function_constants) {
    constants.emplace_back(address_of(constant), type_of(constant), constant.index);
  }
  return device.get_kernel(launch.kernel, library, specialized_name(launch), constants);
}

void check_threads(const Launch& launch, const MTL::ComputePipelineState* kernel) {
  const auto threads =
      static_cast<NS::UInteger>(launch.group[0] * launch.group[1] * launch.group[2]);
  const NS::UInteger most = kernel->maxTotalThreadsPerThreadgroup();
  if (threads > most) {
    throw std::runtime_error("[metal] " + launch.kernel + " needs " + std::to_string(threads) +
                             " threads in a threadgroup; this GPU gives it at most " +
                             std::to_string(most) + ".");
  }
}

MTL::Size size_of(const std::array<int64_t, 3>& n) {
  return MTL::Size(n[0], n[1], n[2]);
}

}  // namespace

Chip chip() {
  return {text_of("device_name"), text_of("architecture"),
          mx::metal::device(mx::Device::gpu).get_architecture_gen()};
}

void encode(const Plan& plan, const Bindings& bindings, mx::Stream s) {
  mx::metal::Device& device = mx::metal::device(s.device);
  mx::metal::CommandEncoder& encoder = mx::metal::get_command_encoder(s);
  encoder.add_temporaries(bindings.temporaries);  // kept until the GPU has finished

  // No commit between the parts of a split launch: MLX adds its handler after eval_gpu to the
  // command buffer that it had before, which must not be committed by then. It commits after a
  // primitive once MLX_MAX_OPS_PER_BUFFER launches have been counted, each part among them.
  for (const Launch& launch : plan.launches) {
    MTL::ComputePipelineState* kernel = kernel_of(device, launch);
    check_threads(launch, kernel);
    encoder.set_compute_pipeline_state(kernel);
    for (const Buffer& buffer : launch.buffers) {
      mx::array x = bindings.at(buffer);
      if (buffer.written) {
        encoder.set_output_array(x, buffer.slot);
      } else {
        encoder.set_input_array(x, buffer.slot);
      }
    }
    for (const Constants& constants : launch.constants) {
      encoder.set_bytes(constants.data.data(), static_cast<int>(constants.data.size()),
                        constants.slot);
    }
    encoder.dispatch_threadgroups(size_of(launch.grid), size_of(launch.group));
  }
}

}  // namespace mlx_esm_kernels::metal
