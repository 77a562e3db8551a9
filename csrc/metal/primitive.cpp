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

}  // namespace mlx_esm_kernels
