// A linear layer whose weight is int8, for inference. Maths: int8_linear.md.
#pragma once

#include <optional>
#include <string>

#include "graph/primitive.h"
#include "linear/linear.h"

namespace mlx_esm_kernels {

// activation(x (scale weight)^T + bias) + residual, each row of x rounded to int8 first: x (...,
// I), weight (O, I) int8, scale (O) of its rows, bias (O) or absent; (..., O) comes back in the
// dtype of x, the shape of residual. Throws std::invalid_argument on operands that do not fit
// together, and where a gradient is asked for.
mx::array int8_linear(const mx::array& x, const mx::array& weight, const mx::array& scale,
                      const std::optional<mx::array>& bias = std::nullopt,
                      const std::optional<std::string>& activation = std::nullopt,
                      const std::optional<mx::array>& residual = std::nullopt,
                      mx::StreamOrDevice s = {});

// Several such layers of one x, which is rounded once. There are as many scales as weights, and as
// many biases, or none.
Arrays int8_linears(const mx::array& x, const Arrays& weights, const Arrays& scales,
                    const Arrays& biases = {}, mx::StreamOrDevice s = {});

// The same maths from MLX's own ops, sums in float32. Operands are checked already.
mx::array int8_linear_composed(const mx::array& x, const mx::array& weight, const mx::array& scale,
                               const std::optional<mx::array>& bias, bool gelu,
                               const std::optional<mx::array>& residual, mx::Stream s);

// Inputs: x (M, I), [residual (M, O), contiguous], the weights, contiguous, the scales, [the
// biases], both float32, contiguous. Outputs: the y (M, O).
class Int8Linear : public OpPrimitiveWith<LinearOptions> {
 public:
  using OpPrimitiveWith::OpPrimitiveWith;

  void eval_cpu(const Arrays& inputs, Arrays& outputs) override;
  Arrays vjp(const Arrays& primals, const Arrays& cotangents, const std::vector<int>& argnums,
             const Arrays& outputs) override;
  Vectorised vmap(const Arrays& inputs, const std::vector<int>& axes) override;
  std::vector<mx::Shape> output_shapes(const Arrays& inputs) override;
  std::vector<mx::Dtype> output_dtypes(const Arrays& inputs) const override;

  const char* op() const override {
    return "int8_linear";
  }
  DEFINE_NAME(Int8Linear)
};

}  // namespace mlx_esm_kernels
