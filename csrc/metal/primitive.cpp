#include "metal/primitive.h"

#include <stdexcept>

#include "metal/device.h"

namespace mlx_esm_kernels {

void MetalPrimitive::eval_gpu(const Arrays& inputs, Arrays& outputs) {
  const auto chip = metal::current_chip();
  if (!chip) {
    throw std::runtime_error(std::string("[") + op() + "] " + name() +
                             " has kernels for Metal only; run it on the CPU.");
  }
  allocate(outputs);
  metal::execute(plan(inputs, outputs, chip->generation), inputs, outputs, stream());
}

void MetalPrimitive::allocate(Arrays& outputs) const {
  for (mx::array& out : outputs) {
    allocate_contiguous(out);
  }
}

void allocate_contiguous(mx::array& out) {
  out.set_data(mx::allocator::malloc(out.nbytes()));
}

void allocate_heads_last(mx::array& out) {
  const int64_t H = out.shape(1), L = out.shape(2), D = out.shape(3);
  const bool row_contiguous = H == 1 || L == 1;
  out.set_data(mx::allocator::malloc(out.nbytes()), out.size(), {L * H * D, D, H * D, 1},
               {true, row_contiguous, false});
}

}  // namespace mlx_esm_kernels
