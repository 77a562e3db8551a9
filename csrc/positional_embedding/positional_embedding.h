// Token embedding plus learned positions that know padding, segments and ESM's token dropout.
// Maths: positional_embedding.md.
#pragma once

#include <optional>

#include "metal/primitive.h"

namespace mlx_esm_kernels {

// tokens: (B, L) integer. token_table: (V, C). position_table: (P, C).
// segment_ids: (B, L), 0 = padding; absent: every row is one segment.
struct EmbeddingOperands {
  mx::array tokens, token_table, position_table;
  std::optional<mx::array> segment_ids;
};

// What both primitives are told besides their inputs.
struct EmbeddingOptions {
  int padding_idx;
  std::optional<int> mask_idx;  // absent: no token dropout
  bool has_segments;
  int vocab, positions;  // V and P
  bool checked = false;  // the values of tokens were seen, and are right
  bool on_metal = false;

  bool operator==(const EmbeddingOptions&) const = default;
};

// (B, L, C): scale * token_table[token] + position_table[padding_idx + place in the segment],
// exactly 0 on padding. Throws std::invalid_argument on operands that do not fit together, on
// tokens outside the table and on sequences longer than it. Inside a transformation that hides the
// tokens (mx.compile, mx.vmap) the last two are found when the result is evaluated; there, on a
// GPU, such rows are NaN. Not fused: from MLX's own ops, on any device.
mx::array positional_embedding(const mx::array& tokens, const mx::array& token_table,
                               const mx::array& position_table, int padding_idx,
                               std::optional<int> mask_idx = std::nullopt,
                               const std::optional<mx::array>& segment_ids = std::nullopt,
                               bool fused = true, mx::StreamOrDevice s = {});

// Throws std::invalid_argument where a token or a position lies outside its table. Inputs are those
// of either primitive below; tokens and ids have been evaluated.
void check_embedding(const Arrays& inputs, const EmbeddingOptions& options);

// The same maths from MLX's own ops, where no kernel of ours runs. Operands are checked already.
mx::array positional_embedding_composed(const EmbeddingOperands& x, const EmbeddingOptions& options,
                                        mx::Stream s);

// Inputs: tokens, [segment_ids], token_table, position_table; the first two int64 and contiguous.
class PositionalEmbedding : public OpPrimitiveWith<EmbeddingOptions, MetalPrimitive> {
 public:
  using OpPrimitiveWith::OpPrimitiveWith;

  void eval_cpu(const Arrays& inputs, Arrays& outputs) override;
  Arrays vjp(const Arrays& primals, const Arrays& cotangents, const std::vector<int>& argnums,
             const Arrays& outputs) override;
  Vectorised vmap(const Arrays& inputs, const std::vector<int>& axes) override;
  std::vector<mx::Shape> output_shapes(const Arrays& inputs) override;
  std::vector<mx::Dtype> output_dtypes(const Arrays& inputs) const override;
  metal::Plan plan(const Arrays& inputs, const Arrays& outputs, int generation) const override;

  const char* op() const override {
    return "positional_embedding";
  }
  DEFINE_NAME(PositionalEmbedding)
};

// Inputs: tokens, [segment_ids], dout. Outputs: dtoken_table, dposition_table.
class PositionalEmbeddingVJP : public OpPrimitiveWith<EmbeddingOptions, MetalPrimitive> {
 public:
  using OpPrimitiveWith::OpPrimitiveWith;

  void eval_cpu(const Arrays& inputs, Arrays& outputs) override;
  Vectorised vmap(const Arrays& inputs, const std::vector<int>& axes) override;
  std::vector<mx::Shape> output_shapes(const Arrays& inputs) override;
  std::vector<mx::Dtype> output_dtypes(const Arrays& inputs) const override;
  metal::Plan plan(const Arrays& inputs, const Arrays& outputs, int generation) const override;

  const char* op() const override {
    return "positional_embedding";
  }
  DEFINE_NAME(PositionalEmbeddingVJP)
};

}  // namespace mlx_esm_kernels
