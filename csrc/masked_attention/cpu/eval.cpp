#include <cstdint>

#include "cpu/arrays.h"
#include "masked_attention/cpu/compute.h"
#include "masked_attention/masked_attention.h"
#include "mlx/backend/cpu/encoder.h"

namespace mlx_esm_kernels {

namespace {

cpu::View view(const mx::array& x) {
  const mx::Strides& s = x.strides();
  return {cpu::bytes(x), s[0], s[1], s[2], s[3]};
}

cpu::AttentionInputs common(const Arrays& inputs, const AttentionOptions& options, size_t extras) {
  const mx::array& q = inputs[0];
  cpu::AttentionInputs in{};
  in.B = q.shape(0);
  in.H = q.shape(1);
  in.L = q.shape(2);
  in.D = q.shape(3);
  in.dtype = cpu::to_dtype(q.dtype());
  in.scale = options.scale;
  in.q = view(q);
  in.k = view(inputs[1]);
  in.v = view(inputs[2]);
  if (options.has_segments) {
    in.segment_ids = inputs[extras].data<int64_t>();
    ++extras;
  }
  if (options.has_bias) {
    in.bias_k = inputs[extras].data<float>();
    in.bias_v = inputs[extras + 1].data<float>();
  }
  return in;
}

}  // namespace

void MaskedAttention::eval_cpu(const Arrays& inputs, Arrays& outputs) {
  if (options_.on_metal) {  // a CPU stream that stands for a GPU in tests
    eval_gpu(inputs, outputs);
    return;
  }
  cpu::allocate_as(inputs[0], *this, outputs);
  cpu::AttentionForward args{common(inputs, options_, 3), view(outputs[0]),
                             outputs[1].data<float>()};
  mx::cpu::get_command_encoder(stream()).dispatch([args] { cpu::attention_forward(args); });
}

void MaskedAttentionVJP::eval_cpu(const Arrays& inputs, Arrays& outputs) {
  if (options_.on_metal) {
    eval_gpu(inputs, outputs);
    return;
  }
  cpu::allocate_as(inputs[0], *this, outputs);
  cpu::AttentionBackward args{};
  static_cast<cpu::AttentionInputs&>(args) = common(inputs, options_, 6);
  args.out = view(inputs[3]);
  args.lse = inputs[4].data<float>();
  args.dout = view(inputs[5]);
  args.dq = view(outputs[0]);
  args.dk = view(outputs[1]);
  args.dv = view(outputs[2]);
  if (options_.has_bias) {
    args.dbias_k = outputs[3].data<float>();
    args.dbias_v = outputs[4].data<float>();
  }
  mx::cpu::get_command_encoder(stream()).dispatch([args] { cpu::attention_backward(args); });
}

}  // namespace mlx_esm_kernels
