#include "cpu/arrays.h"
#include "mlx/backend/cpu/encoder.h"
#include "rotary/cpu/compute.h"
#include "rotary/rotary.h"

namespace mlx_esm_kernels {

namespace {

cpu::Heads heads(const mx::array& x) {
  const mx::Strides& s = x.strides();
  return {cpu::bytes(x), s[0], s[1], s[2], s[3]};
}

}  // namespace

void Rotary::eval_cpu(const Arrays& inputs, Arrays& outputs) {
  if (options_.on_metal) {  // a CPU stream that stands for a GPU in tests
    eval_gpu(inputs, outputs);
    return;
  }
  const mx::array& x = inputs[0];
  cpu::allocate_as(x, *this, outputs);
  const cpu::RotaryTurn args{x.shape(0),
                             x.shape(1),
                             x.shape(2),
                             x.shape(3),
                             cpu::to_dtype(x.dtype()),
                             options_.back,
                             heads(x),
                             heads(outputs[0]),
                             inputs[1].data<float>()};
  mx::cpu::get_command_encoder(stream()).dispatch([args] { cpu::rotary_turn(args); });
}

}  // namespace mlx_esm_kernels
