// Rotary positions: the halves of each head's numbers are turned, as pairs, by given angles. Maths:
// rotary.md.
#pragma once

#include "metal/primitive.h"

namespace mlx_esm_kernels {

struct RotaryOptions {
  bool back;  // by the negative angles
  bool on_metal = false;

  bool operator==(const RotaryOptions&) const = default;
};

// x: (B, H, L, D), D even. angles: (B, L, D) float32, the cosines of D / 2 angles, then their
// sines. Returns x turned, in its dtype; computed in float32. Throws std::invalid_argument on
// arrays that do not fit together. Not fused: from MLX's own ops, on any device.
mx::array rotary(const mx::array& x, const mx::array& angles, bool fused = true,
                 mx::StreamOrDevice s = {});

// The same maths from MLX's own ops, where no kernel of ours runs. x and angles are checked
// already.
mx::array rotary_composed(const mx::array& x, const mx::array& angles, mx::Stream s);

// Inputs: x, angles; the latter contiguous. It is linear in either, so that its own derivative by x
// is what turns back.
class Rotary : public OpPrimitiveWith<RotaryOptions, MetalPrimitive> {
 public:
  using OpPrimitiveWith::OpPrimitiveWith;

  void eval_cpu(const Arrays& inputs, Arrays& outputs) override;
  Arrays vjp(const Arrays& primals, const Arrays& cotangents, const std::vector<int>& argnums,
             const Arrays& outputs) override;
  Vectorised vmap(const Arrays& inputs, const std::vector<int>& axes) override;
  std::vector<mx::Shape> output_shapes(const Arrays& inputs) override;
  std::vector<mx::Dtype> output_dtypes(const Arrays& inputs) const override;
  metal::Plan plan(const Arrays& inputs, const Arrays& outputs, int generation) const override;
  void allocate(Arrays& outputs) const override;

  const char* op() const override {
    return "rotary";
  }
  DEFINE_NAME(Rotary)
};

}  // namespace mlx_esm_kernels
