#include "cpu/arrays.h"
#include "layer_norm/cpu/compute.h"
#include "layer_norm/layer_norm.h"
#include "mlx/backend/cpu/encoder.h"

namespace mlx_esm_kernels {

namespace {

cpu::LayerNormInputs common(const mx::array& s, const mx::array& weight, float eps) {
  return {cpu::to_dtype(s.dtype()), s.shape(0),          s.shape(1), eps,
          cpu::strided_rows(s),     weight.data<float>()};
}

}  // namespace

void LayerNorm::eval_cpu(const Arrays& inputs, Arrays& outputs) {
  const bool shares = options_.gives_sum && !options_.has_delta;
  for (size_t i = 0; i < outputs.size(); ++i) {
    if (shares && i == 0) {
      outputs[0].copy_shared_buffer(inputs[0]);  // s is x
    } else {
      cpu::allocate(outputs[i]);
    }
  }
  const size_t weight = options_.has_delta ? 2 : 1;
  const cpu::LayerNormForward args{
      common(inputs[0], inputs[weight], options_.eps),
      options_.has_delta ? cpu::strided_rows(inputs[1]) : cpu::StridedRows{},
      inputs[weight + 1].data<float>(), options_.has_delta ? cpu::bytes(outputs[0]) : nullptr,
      cpu::bytes(outputs.back())};
  mx::cpu::get_command_encoder(stream()).dispatch([args] { cpu::layer_norm_forward(args); });
}

void LayerNormVJP::eval_cpu(const Arrays& inputs, Arrays& outputs) {
  cpu::allocate(outputs);
  const cpu::LayerNormBackward args{
      common(inputs[0], inputs[1], options_.eps),
      cpu::strided_rows(inputs[2]),
      options_.gives_sum ? cpu::strided_rows(inputs[3]) : cpu::StridedRows{},
      cpu::bytes(outputs[0]),
      outputs[1].data<float>(),
      outputs[2].data<float>()};
  mx::cpu::get_command_encoder(stream()).dispatch([args] { cpu::layer_norm_backward(args); });
}

}  // namespace mlx_esm_kernels
