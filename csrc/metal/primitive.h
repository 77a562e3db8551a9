// A primitive that Metal kernels serve.
#pragma once

#include "graph/primitive.h"
#include "metal/plan.h"

namespace mlx_esm_kernels {

class MetalPrimitive : public OpPrimitive {
 public:
  using OpPrimitive::OpPrimitive;

  // Allocates the outputs and executes the launch plan.
  void eval_gpu(const Arrays& inputs, Arrays& outputs) override;

  // How a GPU of this generation (metal/chip.h) does it, once the outputs are allocated.
  virtual metal::Plan plan(const Arrays& inputs, const Arrays& outputs, int generation) const = 0;

  // Row-contiguous unless overridden.
  virtual void allocate(Arrays& outputs) const;
};

void allocate_contiguous(mx::array& out);

// (B, H, L, D) laid out so that (B, L, H, D) is contiguous: the model merges heads without a copy.
void allocate_heads_last(mx::array& out);

}  // namespace mlx_esm_kernels
