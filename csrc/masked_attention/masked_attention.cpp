#include "masked_attention/masked_attention.h"

#include <algorithm>
#include <cmath>

#include "graph/checks.h"
#include "graph/keep.h"
#include "masked_attention/metal/block_map.h"
#include "masked_attention/metal/launch.h"
#include "masked_attention/metal/tiles.h"
#include "metal/device.h"

namespace mlx_esm_kernels {

namespace {

constexpr const char* kOp = "masked_attention";
constexpr int kMaxHeadDimOnCpu = 256;  // the CPU kernels' scratch is sized for it

void check(const AttentionOperands& x, float scale) {
  if (x.q.ndim() != 4) {
    fail(kOp, "q must have shape (B, H, L, D); got " + text(x.q.shape()) + ".");
  }
  expect_shape(kOp, "k", x.k, x.q.shape(), "(B, H, L, D)");
  expect_shape(kOp, "v", x.v, x.q.shape(), "(B, H, L, D)");
  expect_floating(kOp, "q", x.q);
  if (x.k.dtype() != x.q.dtype() || x.v.dtype() != x.q.dtype()) {
    fail(kOp, "q, k and v must have one dtype; got " + text(x.q.dtype()) + ", " +
                  text(x.k.dtype()) + " and " + text(x.v.dtype()) + ".");
  }
  const int H = x.q.shape(1), D = x.q.shape(3);
  if (D == 0) {
    fail(kOp, "the head dim D must be at least 1; got 0.");
  }
  if (!std::isfinite(scale)) {
    fail(kOp, "scale must be finite; got " + std::to_string(scale) + ".");
  }
  if (x.segment_ids) {
    expect_shape(kOp, "segment_ids", *x.segment_ids, {x.q.shape(0), x.q.shape(2)}, "(B, L)");
    expect_integer(kOp, "segment_ids", *x.segment_ids);
  }
  if (x.bias_k.has_value() != x.bias_v.has_value()) {
    fail(kOp, std::string("bias_k and bias_v must be given together; got only ") +
                  (x.bias_k ? "bias_k." : "bias_v."));
  }
  if (x.bias_k) {
    expect_shape(kOp, "bias_k", *x.bias_k, {H, D}, "(H, D)");
    expect_shape(kOp, "bias_v", *x.bias_v, {H, D}, "(H, D)");
    expect_floating(kOp, "bias_k", *x.bias_k);
    expect_floating(kOp, "bias_v", *x.bias_v);
  }
}

// How many inputs tell of segments: their ids, and on Metal the block map.
int segment_inputs(const AttentionOptions& options) {
  return !options.has_segments ? 0 : options.on_metal ? 2 : 1;
}

}  // namespace

mx::array masked_attention(const mx::array& q, const mx::array& k, const mx::array& v,
                           std::optional<float> scale, const std::optional<mx::array>& segment_ids,
                           const std::optional<mx::array>& bias_k,
                           const std::optional<mx::array>& bias_v, bool fused,
                           mx::StreamOrDevice s) {
  const AttentionOperands x{q, k, v, segment_ids, bias_k, bias_v};
  const float factor = scale.value_or(
      q.ndim() == 4 && q.shape(3) > 0 ? 1.0f / std::sqrt(static_cast<float>(q.shape(3))) : 1.0f);
  check(x, factor);
  const mx::Stream stream = mx::to_stream(s);
  if (q.size() == 0) {
    return mx::zeros_like(q, stream);
  }
  const bool on_metal = metal::runs_on(stream);
  const bool served = on_metal ? attention_served(q.shape(3), q.dtype())
                               : stream.device == mx::Device::cpu && q.shape(3) <= kMaxHeadDimOnCpu;
  if (!fused || !served) {
    return masked_attention_composed(x, factor, stream);
  }
  Arrays inputs = {q, k, v};
  if (segment_ids && on_metal) {
    const MappedSegments segments = mapped_segments(*segment_ids, stream);
    inputs.insert(inputs.end(), {segments.ids, segments.map});
  } else if (segment_ids) {
    inputs.push_back(contiguous_as(*segment_ids, mx::int64, stream));
  }
  if (bias_k) {
    inputs.push_back(contiguous_as(*bias_k, mx::float32, stream));
    inputs.push_back(contiguous_as(*bias_v, mx::float32, stream));
  }
  const AttentionOptions options{factor, segment_ids.has_value(), bias_k.has_value(), on_metal};
  return outputs_of(std::make_shared<MaskedAttention>(stream, options), inputs).front();
}

mx::array masked_attention_composed(const AttentionOperands& x, float scale, mx::Stream s) {
  const mx::Dtype dtype = x.q.dtype();
  const int B = x.q.shape(0), H = x.q.shape(1), L = x.q.shape(2), D = x.q.shape(3);
  mx::array q = x.q, k = x.k, v = x.v;
  mx::array real = mx::full({B, 1, L, 1}, true, mx::bool_, s);
  std::optional<mx::array> mask;
  if (x.segment_ids) {
    const mx::array& ids = *x.segment_ids;
    const mx::array zero = mx::array(0, ids.dtype());
    real = mx::reshape(mx::not_equal(ids, zero, s), {B, 1, L, 1}, s);
    // A padding query attends to everything: its row of the softmax stays finite, and what it gives
    // is discarded below, its gradient with it.
    const mx::array same = mx::equal(mx::expand_dims(ids, 2, s), mx::expand_dims(ids, 1, s), s);
    mask = mx::logical_or(mx::expand_dims(same, 1, s), mx::logical_not(real, s), s);
    // Padding may hold NaN, and 0 * NaN is NaN.
    q = keep(real, q, s);
    k = keep(real, k, s);
    v = keep(real, v, s);
  }
  if (x.bias_k) {
    const auto one_more = [&](const mx::array& keys, const mx::array& bias) {
      const mx::array row = mx::reshape(mx::astype(bias, dtype, s), {1, H, 1, D}, s);
      return mx::concatenate({keys, mx::broadcast_to(row, {B, H, 1, D}, s)}, 2, s);
    };
    k = one_more(k, *x.bias_k);
    v = one_more(v, *x.bias_v);
    if (mask) {
      mask = mx::concatenate({*mask, mx::full({B, 1, L, 1}, true, mx::bool_, s)}, 3, s);
    }
  }
  const mx::array out = mx::fast::scaled_dot_product_attention(q, k, v, scale, mask ? "array" : "",
                                                               mask, {}, false, s);
  return x.segment_ids ? keep(real, out, s) : out;
}

// ---- MaskedAttention ----------------------------------------------------------------------------

Arrays MaskedAttention::vjp(const Arrays& primals, const Arrays& cotangents,
                            const std::vector<int>& argnums, const Arrays& outputs) {
  Arrays inputs = {primals[0], primals[1], primals[2], outputs[0], outputs[1], cotangents[0]};
  inputs.insert(inputs.end(), primals.begin() + 3, primals.end());
  const Arrays gradients =
      outputs_of(std::make_shared<MaskedAttentionVJP>(stream(), options_), inputs);
  const int biases = 3 + segment_inputs(options_);  // the ids and their map have no gradient
  Arrays wanted;
  for (int i : argnums) {
    if (i >= 3 && i < biases) {
      wanted.push_back(mx::zeros_like(primals[i], stream()));
    } else {
      wanted.push_back(gradients[i < 3 ? i : i - segment_inputs(options_)]);
    }
  }
  return wanted;
}

Vectorised MaskedAttention::vmap(const Arrays& inputs, const std::vector<int>& axes) {
  return vmap_by_either(inputs, axes, 3 + segment_inputs(options_), anew<MaskedAttention>(),
                        stream());
}

std::vector<mx::Shape> MaskedAttention::output_shapes(const Arrays& inputs) {
  const mx::array& q = inputs[0];
  return {q.shape(), {q.shape(0), q.shape(1), q.shape(2)}};
}

std::vector<mx::Dtype> MaskedAttention::output_dtypes(const Arrays& inputs) const {
  return {inputs[0].dtype(), mx::float32};
}

metal::Plan MaskedAttention::plan(const Arrays& inputs, const Arrays& outputs,
                                  int generation) const {
  return attention_forward_plan(inputs, outputs, options_, generation);
}

void MaskedAttention::allocate(Arrays& outputs) const {
  allocate_heads_last(outputs[0]);
  std::for_each(outputs.begin() + 1, outputs.end(), allocate_contiguous);
}

// ---- MaskedAttentionVJP -------------------------------------------------------------------------

Vectorised MaskedAttentionVJP::vmap(const Arrays& inputs, const std::vector<int>& axes) {
  const Builder build = anew<MaskedAttentionVJP>();
  // Folding would sum the bias gradients of all elements.
  return options_.has_bias ? vmap_by_loop(inputs, axes, build, stream())
                           : vmap_by_folding(inputs, axes, inputs.size(), build, stream());
}

std::vector<mx::Shape> MaskedAttentionVJP::output_shapes(const Arrays& inputs) {
  std::vector<mx::Shape> shapes(3, inputs[0].shape());
  if (options_.has_bias) {
    shapes.resize(5, {inputs[0].shape(1), inputs[0].shape(3)});
  }
  return shapes;
}

std::vector<mx::Dtype> MaskedAttentionVJP::output_dtypes(const Arrays& inputs) const {
  std::vector<mx::Dtype> dtypes(3, inputs[0].dtype());
  if (options_.has_bias) {
    dtypes.resize(5, mx::float32);
  }
  return dtypes;
}

metal::Plan MaskedAttentionVJP::plan(const Arrays& inputs, const Arrays& outputs,
                                     int generation) const {
  return attention_backward_plan(inputs, outputs, options_, generation);
}

void MaskedAttentionVJP::allocate(Arrays& outputs) const {
  std::for_each(outputs.begin(), outputs.begin() + 3, allocate_heads_last);
  std::for_each(outputs.begin() + 3, outputs.end(), allocate_contiguous);
}

}  // namespace mlx_esm_kernels
