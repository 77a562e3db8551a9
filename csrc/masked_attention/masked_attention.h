// Attention within segments, forward and backward. Maths: masked_attention.md.
#pragma once

#include <optional>

#include "metal/primitive.h"

namespace mlx_esm_kernels {

// q, k, v: (B, H, L, D). segment_ids: (B, L), 0 = padding; absent: every row is one segment.
// bias_k, bias_v: (H, D), one more key and value that every query sees.
struct AttentionOperands {
  mx::array q, k, v;
  std::optional<mx::array> segment_ids, bias_k, bias_v;
};

// out = softmax(scale q k^T) v within each segment; padding rows are exactly 0.
// scale defaults to D^-0.5. Not fused: from MLX's own ops, on any device. Throws
// std::invalid_argument on operands that do not fit together.
mx::array masked_attention(const mx::array& q, const mx::array& k, const mx::array& v,
                           std::optional<float> scale = std::nullopt,
                           const std::optional<mx::array>& segment_ids = std::nullopt,
                           const std::optional<mx::array>& bias_k = std::nullopt,
                           const std::optional<mx::array>& bias_v = std::nullopt, bool fused = true,
                           mx::StreamOrDevice s = {});

// The same maths from MLX's own ops, where no kernel of ours runs. Operands are checked already.
mx::array masked_attention_composed(const AttentionOperands& x, float scale, mx::Stream s);

// What both primitives are told besides their inputs.
struct AttentionOptions {
  float scale;
  bool has_segments, has_bias;
  bool on_metal;

  bool operator==(const AttentionOptions&) const = default;
};

// Inputs: q, k, v, [segment_ids, [block map, on Metal]], [bias_k, bias_v]; ids int64 and
// contiguous, biases float32 and contiguous. Outputs: out, and for backward lse (B, H, L) float32.
class MaskedAttention : public OpPrimitiveWith<AttentionOptions, MetalPrimitive> {
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
    return "masked_attention";
  }
  DEFINE_NAME(MaskedAttention)
};

// Inputs: q, k, v, out, lse, dout, [segment_ids, [block map]], [bias_k, bias_v].
// Outputs: dq, dk, dv, [dbias_k, dbias_v].
class MaskedAttentionVJP : public OpPrimitiveWith<AttentionOptions, MetalPrimitive> {
 public:
  using OpPrimitiveWith::OpPrimitiveWith;

  void eval_cpu(const Arrays& inputs, Arrays& outputs) override;
  Vectorised vmap(const Arrays& inputs, const std::vector<int>& axes) override;
  std::vector<mx::Shape> output_shapes(const Arrays& inputs) override;
  std::vector<mx::Dtype> output_dtypes(const Arrays& inputs) const override;
  metal::Plan plan(const Arrays& inputs, const Arrays& outputs, int generation) const override;
  void allocate(Arrays& outputs) const override;

  const char* op() const override {
    return "masked_attention";
  }
  DEFINE_NAME(MaskedAttentionVJP)
};

}  // namespace mlx_esm_kernels
