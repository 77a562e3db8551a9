#include "positional_embedding/positional_embedding.h"

#include <stdexcept>

#include "graph/checks.h"
#include "metal/device.h"
#include "positional_embedding/metal/launch.h"

namespace mlx_esm_kernels {

namespace {

constexpr const char* kOp = "positional_embedding";

void check_shapes(const EmbeddingOperands& x) {
  if (x.tokens.ndim() != 2) {
    fail(kOp, "tokens must have shape (B, L); got " + text(x.tokens.shape()) + ".");
  }
  expect_integer(kOp, "tokens", x.tokens);
  if (x.token_table.ndim() != 2) {
    fail(kOp, "token_table must have shape (V, C); got " + text(x.token_table.shape()) + ".");
  }
  expect_floating(kOp, "token_table", x.token_table);
  const int C = x.token_table.shape(1);
  if (x.position_table.ndim() != 2 || x.position_table.shape(1) != C) {
    fail(kOp, "position_table must have shape (P, C) with C = " + std::to_string(C) +
                  " as in token_table; got " + text(x.position_table.shape()) + ".");
  }
  if (x.position_table.dtype() != x.token_table.dtype()) {
    fail(kOp, "token_table and position_table must have one dtype; got " +
                  text(x.token_table.dtype()) + " and " + text(x.position_table.dtype()) + ".");
  }
  if (x.segment_ids) {
    expect_shape(kOp, "segment_ids", *x.segment_ids, x.tokens.shape(), "(B, L)");
    expect_integer(kOp, "segment_ids", *x.segment_ids);
  }
}

void check_indices(const EmbeddingOptions& o) {
  const auto check = [&](const char* name, int index) {
    if (index < 0 || index >= o.vocab) {
      fail(kOp, std::string(name) + " must be in [0, " + std::to_string(o.vocab) +
                    "), the rows of token_table; got " + std::to_string(index) + ".");
    }
  };
  check("padding_idx", o.padding_idx);
  if (o.mask_idx) {
    check("mask_idx", *o.mask_idx);
  }
}

// Whether the values can be had now: mx.compile and mx.vmap put arrays without values in the place
// of their arguments, and refuse to evaluate what is made of those.
bool has_values(mx::array x) {
  if (!x.has_primitive()) {
    return x.data_shared_ptr() != nullptr;
  }
  try {
    x.eval();
    return true;
  } catch (const std::invalid_argument&) {
    return false;
  }
}

}  // namespace

mx::array positional_embedding(const mx::array& tokens, const mx::array& token_table,
                               const mx::array& position_table, int padding_idx,
                               std::optional<int> mask_idx,
                               const std::optional<mx::array>& segment_ids, bool fused,
                               mx::StreamOrDevice s) {
  const EmbeddingOperands x{tokens, token_table, position_table, segment_ids};
  check_shapes(x);
  const mx::Stream stream = mx::to_stream(s);
  EmbeddingOptions options{
      .padding_idx = padding_idx,
      .mask_idx = mask_idx,
      .has_segments = segment_ids.has_value(),
      .vocab = token_table.shape(0),
      .positions = position_table.shape(0),
      .on_metal = metal::runs_on(stream),
  };
  check_indices(options);
  const int B = tokens.shape(0), L = tokens.shape(1), C = token_table.shape(1);
  if (B == 0 || L == 0 || C == 0) {
    return mx::zeros({B, L, C}, token_table.dtype(), stream);
  }
  Arrays inputs = {contiguous_as(tokens, mx::int64, stream)};
  if (segment_ids) {
    inputs.push_back(contiguous_as(*segment_ids, mx::int64, stream));
  }
  if (has_values(tokens) && (!segment_ids || has_values(*segment_ids))) {
    mx::eval(inputs);
    options.checked = true;
  }
  inputs.push_back(token_table);
  inputs.push_back(position_table);
  if (options.checked) {
    check_embedding(inputs, options);
  }
  if (!fused || (stream.device != mx::Device::cpu && !options.on_metal)) {
    return positional_embedding_composed(x, options, stream);
  }
  return outputs_of(std::make_shared<PositionalEmbedding>(stream, options), inputs).front();
}

// ---- PositionalEmbedding ------------------------------------------------------------------------

Arrays PositionalEmbedding::vjp(const Arrays& primals, const Arrays& cotangents,
                                const std::vector<int>& argnums, const Arrays&) {
  const int tables = options_.has_segments ? 2 : 1;
  Arrays inputs(primals.begin(), primals.begin() + tables);
  inputs.push_back(cotangents[0]);
  const Arrays gradients =
      outputs_of(std::make_shared<PositionalEmbeddingVJP>(stream(), options_), inputs);
  Arrays wanted;
  for (int i : argnums) {
    wanted.push_back(i < tables ? mx::zeros_like(primals[i], stream()) : gradients[i - tables]);
  }
  return wanted;
}

Vectorised PositionalEmbedding::vmap(const Arrays& inputs, const std::vector<int>& axes) {
  return vmap_by_either(inputs, axes, options_.has_segments ? 2 : 1, anew<PositionalEmbedding>(),
                        stream());
}

std::vector<mx::Shape> PositionalEmbedding::output_shapes(const Arrays& inputs) {
  return {{inputs[0].shape(0), inputs[0].shape(1), inputs.back().shape(1)}};
}

std::vector<mx::Dtype> PositionalEmbedding::output_dtypes(const Arrays& inputs) const {
  return {inputs.back().dtype()};
}

metal::Plan PositionalEmbedding::plan(const Arrays& inputs, const Arrays& outputs, int) const {
  return embedding_forward_plan(inputs, outputs, options_);
}

// ---- PositionalEmbeddingVJP ---------------------------------------------------------------------

Vectorised PositionalEmbeddingVJP::vmap(const Arrays& inputs, const std::vector<int>& axes) {
  return vmap_by_loop(inputs, axes, anew<PositionalEmbeddingVJP>(), stream());
}

std::vector<mx::Shape> PositionalEmbeddingVJP::output_shapes(const Arrays& inputs) {
  const int C = inputs.back().shape(2);
  return {{options_.vocab, C}, {options_.positions, C}};
}

std::vector<mx::Dtype> PositionalEmbeddingVJP::output_dtypes(const Arrays& inputs) const {
  return {inputs.back().dtype(), inputs.back().dtype()};
}

metal::Plan PositionalEmbeddingVJP::plan(const Arrays& inputs, const Arrays& outputs, int) const {
  return embedding_backward_plan(inputs, outputs, options_);
}

}  // namespace mlx_esm_kernels
