// A step of AdamW with clipped gradients on all parameters at once. Maths: adamw.md.
#pragma once

#include <vector>

#include "graph/primitive.h"

namespace mlx_esm_kernels {

struct AdamWOptions {
  float beta_1, beta_2, weight_decay, clip_norm;

  bool operator==(const AdamWOptions&) const = default;
};

// Parameters, or what belongs to each of them, in one order.
struct AdamWState {
  Arrays weights, m, v;
};

struct AdamWResult {
  AdamWState state;
  mx::array norm;  // of all gradients before clipping, a float32 scalar
};

// rates: (3,) float32, see adamw.md. Parameters of two or more axes decay, the others do not.
// Throws std::invalid_argument where the arrays do not fit together.
AdamWResult adamw(const AdamWState& old, const Arrays& gradients, const mx::array& rates,
                  const AdamWOptions& options, mx::StreamOrDevice s = {});

// The same maths from MLX's own ops. Operands are checked already.
AdamWResult adamw_composed(const AdamWState& old, const Arrays& gradients, const mx::array& rates,
                           const AdamWOptions& options, mx::Stream s);

// What both parts of a step are: neither differentiable nor mappable.
class AdamWPart : public OpPrimitiveWith<AdamWOptions> {
 public:
  using OpPrimitiveWith::OpPrimitiveWith;

  Arrays jvp(const Arrays& primals, const Arrays& tangents,
             const std::vector<int>& argnums) override;
  Arrays vjp(const Arrays& primals, const Arrays& cotangents, const std::vector<int>& argnums,
             const Arrays& outputs) override;
  Vectorised vmap(const Arrays& inputs, const std::vector<int>& axes) override;

  const char* op() const override {
    return "adamw";
  }
};

// Inputs: all gradients, float32 and contiguous. Output: their norm.
class GradientNorm : public AdamWPart {
 public:
  using AdamWPart::AdamWPart;

  void eval_cpu(const Arrays& inputs, Arrays& outputs) override;
  std::vector<mx::Shape> output_shapes(const Arrays& inputs) override;
  std::vector<mx::Dtype> output_dtypes(const Arrays& inputs) const override;
  DEFINE_NAME(GradientNorm)
};

// Inputs: rates, the norm, then the weights, gradients, m and v of some parameters, float32 and
// contiguous. Outputs: their new weights, m and v.
class AdamW : public AdamWPart {
 public:
  using AdamWPart::AdamWPart;

  void eval_cpu(const Arrays& inputs, Arrays& outputs) override;
  std::vector<mx::Shape> output_shapes(const Arrays& inputs) override;
  std::vector<mx::Dtype> output_dtypes(const Arrays& inputs) const override;
  DEFINE_NAME(AdamW)
};

}  // namespace mlx_esm_kernels
