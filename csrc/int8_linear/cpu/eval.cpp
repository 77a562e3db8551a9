#include <vector>

#include "cpu/arrays.h"
#include "int8_linear/cpu/compute.h"
#include "int8_linear/int8_linear.h"
#include "mlx/backend/cpu/encoder.h"

namespace mlx_esm_kernels {

void Int8Linear::eval_cpu(const Arrays& inputs, Arrays& outputs) {
  cpu::allocate(outputs);
  const mx::array& x = inputs[0];
  const int weights = options_.has_residual ? 2 : 1;
  const int scales = weights + options_.layers, biases = scales + options_.layers;
  const auto matrix = [](const mx::array& a) {
    return cpu::Matrix{cpu::strided_rows(a), a.shape(0), a.shape(1)};
  };
  std::vector<cpu::Int8LinearForward> layers;
  for (int i = 0; i < options_.layers; ++i) {
    const cpu::Dtype dtype = cpu::to_dtype(x.dtype());
    const cpu::LinearInputs in{dtype, matrix(x), matrix(inputs[weights + i]), dtype, options_.gelu};
    layers.push_back(
        {{in, options_.has_bias ? inputs[biases + i].data<float>() : nullptr,
          options_.has_residual ? cpu::bytes(inputs[1]) : nullptr, cpu::bytes(outputs[i]), nullptr},
         inputs[scales + i].data<float>()});
  }
  mx::cpu::get_command_encoder(stream()).dispatch(
      [layers] { cpu::int8_linear_forward(layers.data(), static_cast<int>(layers.size())); });
}

}  // namespace mlx_esm_kernels
