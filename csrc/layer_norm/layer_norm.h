// Layer normalisation over the last axis, with a residual connection on the way. Maths:
// layer_norm.md.
#pragma once

#include <optional>
#include <utility>

#include "graph/primitive.h"

namespace mlx_esm_kernels {

// x (..., C), weight and bias (C); (..., C) in the dtype of x comes back. Throws
// std::invalid_argument on operands that do not fit together.
mx::array layer_norm(const mx::array& x, const mx::array& weight, const mx::array& bias, float eps,
                     mx::StreamOrDevice s = {});

// s = x + delta (x itself where delta is absent) and the layer_norm of s, whose gradients to x are
// added up in one pass.
std::pair<mx::array, mx::array> add_layer_norm(const mx::array& x,
                                               const std::optional<mx::array>& delta,
                                               const mx::array& weight, const mx::array& bias,
                                               float eps, mx::StreamOrDevice s = {});

// layer_norm's maths from MLX's own ops. Operands are checked already.
mx::array layer_norm_composed(const mx::array& x, const mx::array& weight, const mx::array& bias,
                              float eps, mx::Stream s);

struct LayerNormOptions {
  bool has_delta, gives_sum;
  float eps;

  bool operator==(const LayerNormOptions&) const = default;
};

// Inputs: x (M, C), [delta (M, C)], weight and bias, float32 and contiguous. Outputs: [s], y.
class LayerNorm : public OpPrimitiveWith<LayerNormOptions> {
 public:
  using OpPrimitiveWith::OpPrimitiveWith;

  void eval_cpu(const Arrays& inputs, Arrays& outputs) override;
  Arrays vjp(const Arrays& primals, const Arrays& cotangents, const std::vector<int>& argnums,
             const Arrays& outputs) override;
  Vectorised vmap(const Arrays& inputs, const std::vector<int>& axes) override;
  std::vector<mx::Shape> output_shapes(const Arrays& inputs) override;
  std::vector<mx::Dtype> output_dtypes(const Arrays& inputs) const override;

  const char* op() const override {
    return "layer_norm";
  }
  DEFINE_NAME(LayerNorm)
};

// Inputs: s (M, C), weight, dy, [ds]. Outputs: dx, dweight and dbias (float32).
class LayerNormVJP : public OpPrimitiveWith<LayerNormOptions> {
 public:
  using OpPrimitiveWith::OpPrimitiveWith;

  void eval_cpu(const Arrays& inputs, Arrays& outputs) override;
  Vectorised vmap(const Arrays& inputs, const std::vector<int>& axes) override;
  std::vector<mx::Shape> output_shapes(const Arrays& inputs) override;
  std::vector<mx::Dtype> output_dtypes(const Arrays& inputs) const override;

  const char* op() const override {
    return "layer_norm";
  }
  DEFINE_NAME(LayerNormVJP)
};

}  // namespace mlx_esm_kernels
