// A linear layer with its bias and an exact GELU, on a real BLAS. Maths: linear.md.
#pragma once

#include <optional>
#include <string>

#include "graph/primitive.h"

namespace mlx_esm_kernels {

// activation(x weight^T + bias): x (..., I), weight (O, I), bias (O) or absent; (..., O) comes
// back. activation: absent or "gelu", the exact one with erf. Throws std::invalid_argument on
// operands that do not fit together.
mx::array linear(const mx::array& x, const mx::array& weight,
                 const std::optional<mx::array>& bias = std::nullopt,
                 const std::optional<std::string>& activation = std::nullopt,
                 mx::StreamOrDevice s = {});

// The same maths from MLX's own ops. Operands are checked already.
mx::array linear_composed(const mx::array& x, const mx::array& weight,
                          const std::optional<mx::array>& bias, bool gelu, mx::Stream s);

struct LinearOptions {
  bool has_bias, gelu;

  bool operator==(const LinearOptions&) const = default;
};

// Inputs: x (M, I), weight, [bias float32, contiguous]. Outputs: y (M, O), and with GELU the values
// before it, for backward.
class Linear : public OpPrimitiveWith<LinearOptions> {
 public:
  using OpPrimitiveWith::OpPrimitiveWith;

  void eval_cpu(const Arrays& inputs, Arrays& outputs) override;
  Arrays vjp(const Arrays& primals, const Arrays& cotangents, const std::vector<int>& argnums,
             const Arrays& outputs) override;
  Vectorised vmap(const Arrays& inputs, const std::vector<int>& axes) override;
  std::vector<mx::Shape> output_shapes(const Arrays& inputs) override;
  std::vector<mx::Dtype> output_dtypes(const Arrays& inputs) const override;

  const char* op() const override {
    return "linear";
  }
  DEFINE_NAME(Linear)
};

// Which gradients are wanted, and whether there was GELU.
struct LinearGradients {
  bool x, weight, bias, gelu;

  bool operator==(const LinearGradients&) const = default;
};

// Inputs: x, weight, dy, [values before GELU, contiguous]. Outputs: the wanted ones of dx, dweight,
// dbias (float32).
class LinearVJP : public OpPrimitiveWith<LinearGradients> {
 public:
  using OpPrimitiveWith::OpPrimitiveWith;

  void eval_cpu(const Arrays& inputs, Arrays& outputs) override;
  Vectorised vmap(const Arrays& inputs, const std::vector<int>& axes) override;
  std::vector<mx::Shape> output_shapes(const Arrays& inputs) override;
  std::vector<mx::Dtype> output_dtypes(const Arrays& inputs) const override;

  const char* op() const override {
    return "linear";
  }
  DEFINE_NAME(LinearVJP)
};

}  // namespace mlx_esm_kernels
