// A linear layer with its bias and an exact GELU, on a real BLAS. Maths: linear.md.
#pragma once

#include <optional>
#include <string>

#include "graph/primitive.h"

namespace mlx_esm_kernels {

// activation(x weight^T + bias) + residual: x (..., I), weight (O, I), bias (O) or absent; (..., O)
// comes back, the shape of residual. A weight of float32 serves any x, and has a gradient of
// float32; otherwise it has x's dtype. activation: absent or "gelu", the exact one with erf. Throws
// std::invalid_argument on operands that do not fit together.
mx::array linear(const mx::array& x, const mx::array& weight,
                 const std::optional<mx::array>& bias = std::nullopt,
                 const std::optional<std::string>& activation = std::nullopt,
                 const std::optional<mx::array>& residual = std::nullopt,
                 mx::StreamOrDevice s = {});

// Several linear layers of one x, as one: x weight^T + bias for each, and one pass over what makes
// the gradient of x. There are as many biases as weights, or none.
Arrays linears(const mx::array& x, const Arrays& weights, const Arrays& biases = {},
               mx::StreamOrDevice s = {});

// What the linear layers of other weights check as this one does; `op` is theirs.
// Whether the activation is GELU; it may be no other.
bool is_gelu(const char* op, const std::optional<std::string>& activation);

// The shape (..., O) of the result, which a residual must have.
mx::Shape linear_shape(const char* op, const mx::array& x, const mx::array& weight,
                       const std::optional<mx::array>& residual);

// The exact GELU of float32, from MLX's own ops.
mx::array gelu_composed(const mx::array& h, mx::Stream s);

// The same maths from MLX's own ops. Operands are checked already.
mx::array linear_composed(const mx::array& x, const mx::array& weight,
                          const std::optional<mx::array>& bias, bool gelu, mx::Stream s);

// A residual comes with a single layer. With GELU, the values before it are kept where a gradient
// may be asked for.
struct LinearOptions {
  int layers;
  bool has_bias, gelu, keeps, has_residual;

  bool operator==(const LinearOptions&) const = default;
};

// Inputs: x (M, I), [residual (M, O), contiguous], the weights, [the biases, float32, contiguous].
// Outputs: the y (M, O), and what is kept of the values before GELU.
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
  int layers;
  bool x, weights, biases, gelu;

  bool operator==(const LinearGradients&) const = default;
};

// Inputs: x, the weights, the dy, [the values before GELU, contiguous]. Outputs: the wanted ones of
// dx, the dweight, the dbias (float32).
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
