#include <vector>

#include "cpu/arrays.h"
#include "linear/cpu/compute.h"
#include "linear/linear.h"
#include "mlx/backend/cpu/encoder.h"

namespace mlx_esm_kernels {

namespace {

cpu::Matrix matrix(const mx::array& x) {
  return {cpu::strided_rows(x), x.shape(0), x.shape(1)};
}

cpu::LinearInputs common(const mx::array& x, const mx::array& weight, bool gelu) {
  return {cpu::to_dtype(x.dtype()), matrix(x), matrix(weight), cpu::to_dtype(weight.dtype()), gelu};
}

}  // namespace

void Linear::eval_cpu(const Arrays& inputs, Arrays& outputs) {
  cpu::allocate(outputs);
  const int weights = options_.has_residual ? 2 : 1;
  std::vector<cpu::LinearForward> layers;
  for (int i = 0; i < options_.layers; ++i) {
    layers.push_back(
        {common(inputs[0], inputs[weights + i], options_.gelu),
         options_.has_bias ? inputs[weights + options_.layers + i].data<float>() : nullptr,
         options_.has_residual ? cpu::bytes(inputs[1]) : nullptr, cpu::bytes(outputs[i]),
         options_.keeps ? cpu::bytes(outputs[options_.layers + i]) : nullptr});
  }
  mx::cpu::get_command_encoder(stream()).dispatch(
      [layers] { cpu::linear_forward(layers.data(), static_cast<int>(layers.size())); });
}

void LinearVJP::eval_cpu(const Arrays& inputs, Arrays& outputs) {
  cpu::allocate(outputs);
  const int count = options_.layers, weights = options_.x ? 1 : 0;
  const int biases = weights + (options_.weights ? count : 0);
  std::vector<cpu::LinearBackward> layers;
  for (int i = 0; i < count; ++i) {
    layers.push_back({common(inputs[0], inputs[1 + i], options_.gelu),
                      matrix(inputs[1 + count + i]),
                      options_.gelu ? cpu::bytes(inputs[1 + 2 * count + i]) : nullptr,
                      options_.x ? cpu::bytes(outputs[0]) : nullptr,
                      options_.weights ? cpu::bytes(outputs[weights + i]) : nullptr,
                      options_.biases ? outputs[biases + i].data<float>() : nullptr});
  }
  mx::cpu::get_command_encoder(stream()).dispatch(
      [layers] { cpu::linear_backward(layers.data(), static_cast<int>(layers.size())); });
}

}  // namespace mlx_esm_kernels
