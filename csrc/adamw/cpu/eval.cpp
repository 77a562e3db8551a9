#include "adamw/adamw.h"
#include "adamw/cpu/compute.h"
#include "cpu/arrays.h"
#include "mlx/backend/cpu/encoder.h"

namespace mlx_esm_kernels {

void GradientNorm::eval_cpu(const Arrays& inputs, Arrays& outputs) {
  cpu::allocate(outputs);
  std::vector<cpu::Numbers> gradients;
  for (const mx::array& g : inputs) {
    gradients.push_back({g.data<float>(), static_cast<int64_t>(g.size())});
  }
  auto* norm = outputs[0].data<float>();
  mx::cpu::get_command_encoder(stream()).dispatch(
      [gradients, norm] { *norm = cpu::gradient_norm(gradients); });
}

void AdamW::eval_cpu(const Arrays& inputs, Arrays& outputs) {
  cpu::allocate(outputs);
  const size_t count = (inputs.size() - 2) / 4;
  const auto in = [&](size_t list, size_t i) { return inputs[2 + list * count + i].data<float>(); };
  const auto out = [&](size_t list, size_t i) { return outputs[list * count + i].data<float>(); };
  cpu::AdamWStep step{options_.beta_1,
                      options_.beta_2,
                      options_.weight_decay,
                      options_.clip_norm,
                      inputs[0].data<float>(),
                      inputs[1].data<float>(),
                      {}};
  for (size_t i = 0; i < count; ++i) {
    const mx::array& w = inputs[2 + i];
    step.parameters.push_back({static_cast<int64_t>(w.size()), w.ndim() > 1, in(0, i), in(1, i),
                               in(2, i), in(3, i), out(0, i), out(1, i), out(2, i)});
  }
  mx::cpu::get_command_encoder(stream()).dispatch([step] { cpu::adamw_step(step); });
}

}  // namespace mlx_esm_kernels
