#include "cpu/arrays.h"
#include "linear/linear.h"
#include "linear/linear_compute.h"
#include "mlx/backend/cpu/encoder.h"

namespace mlx_esm_kernels {

namespace {

cpu::Matrix matrix(const mx::array& x) {
  return {cpu::bytes(x), x.shape(0), x.shape(1), x.strides()[0], x.strides()[1]};
}

cpu::LinearInputs common(const Arrays& inputs, bool gelu) {
  return {cpu::to_dtype(inputs[0].dtype()), matrix(inputs[0]), matrix(inputs[1]), gelu};
}

}  // namespace

void Linear::eval_cpu(const Arrays& inputs, Arrays& outputs) {
  for (mx::array& out : outputs) {
    cpu::allocate(out);
  }
  cpu::LinearForward args{common(inputs, options_.gelu),
                          options_.has_bias ? inputs[2].data<float>() : nullptr,
                          cpu::bytes(outputs[0]), options_.gelu ? cpu::bytes(outputs[1]) : nullptr};
  mx::cpu::get_command_encoder(stream()).dispatch([args] { cpu::linear_forward(args); });
}

void LinearVJP::eval_cpu(const Arrays& inputs, Arrays& outputs) {
  size_t next = 0;
  const auto allocate = [&](bool wanted) -> void* {
    if (!wanted) {
      return nullptr;
    }
    cpu::allocate(outputs[next]);
    return cpu::bytes(outputs[next++]);
  };
  cpu::LinearBackward args{};
  static_cast<cpu::LinearInputs&>(args) = common(inputs, options_.gelu);
  args.dy = matrix(inputs[2]);
  args.pre = options_.gelu ? cpu::bytes(inputs[3]) : nullptr;
  args.dx = allocate(options_.x);
  args.dweight = allocate(options_.weight);
  args.dbias = static_cast<float*>(allocate(options_.bias));
  mx::cpu::get_command_encoder(stream()).dispatch([args] { cpu::linear_backward(args); });
}

}  // namespace mlx_esm_kernels
