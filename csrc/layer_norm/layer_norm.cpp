#include "layer_norm/layer_norm.h"

#include <cmath>

#include "graph/checks.h"

namespace mlx_esm_kernels {

namespace {

constexpr const char* kOp = "layer_norm";

void check(const mx::array& x, const mx::array& weight, const mx::array& bias, float eps) {
  expect_floating(kOp, "x", x);
  if (x.ndim() == 0 || x.shape(-1) == 0) {
    fail(kOp, "x must have shape (..., C) with C at least 1; got " + text(x.shape()) + ".");
  }
  expect_floating(kOp, "weight", weight);
  expect_shape(kOp, "weight", weight, {x.shape(-1)}, "(C,)");
  expect_floating(kOp, "bias", bias);
  expect_shape(kOp, "bias", bias, {x.shape(-1)}, "(C,)");
  if (!(eps > 0) || !std::isfinite(eps)) {
    fail(kOp, "eps must be a finite number above 0; got " + std::to_string(eps) + ".");
  }
}

// Outputs of the primitive on a CPU stream, in the shape of x.
Arrays build(const mx::array& x, const std::optional<mx::array>& delta, const mx::array& weight,
             const mx::array& bias, const LayerNormOptions& options, mx::Stream s) {
  Arrays inputs = {as_rows(x, s)};
  if (delta) {
    inputs.push_back(as_rows(*delta, s));
  }
  inputs.push_back(contiguous_as(weight, mx::float32, s));
  inputs.push_back(contiguous_as(bias, mx::float32, s));
  Arrays outputs = outputs_of(std::make_shared<LayerNorm>(s, options), inputs);
  for (mx::array& out : outputs) {
    out = mx::reshape(out, x.shape(), s);
  }
  return outputs;
}

}  // namespace

mx::array layer_norm(const mx::array& x, const mx::array& weight, const mx::array& bias, float eps,
                     mx::StreamOrDevice s) {
  check(x, weight, bias, eps);
  const mx::Stream stream = mx::to_stream(s);
  if (stream.device != mx::Device::cpu) {
    return layer_norm_composed(x, weight, bias, eps, stream);
  }
  return build(x, std::nullopt, weight, bias, {false, false, eps}, stream).front();
}

std::pair<mx::array, mx::array> add_layer_norm(const mx::array& x,
                                               const std::optional<mx::array>& delta,
                                               const mx::array& weight, const mx::array& bias,
                                               float eps, mx::StreamOrDevice s) {
  check(x, weight, bias, eps);
  if (delta) {
    expect_shape(kOp, "delta", *delta, x.shape(), "of x");
    if (delta->dtype() != x.dtype()) {
      fail(kOp, "x and delta must have one dtype; got " + text(x.dtype()) + " and " +
                    text(delta->dtype()) + ".");
    }
  }
  const mx::Stream stream = mx::to_stream(s);
  if (stream.device != mx::Device::cpu) {
    const mx::array sum = delta ? mx::add(x, *delta, stream) : x;
    return {sum, layer_norm_composed(sum, weight, bias, eps, stream)};
  }
  const LayerNormOptions options{delta.has_value(), true, eps};
  const Arrays outputs = build(x, delta, weight, bias, options, stream);
  return {outputs[0], outputs[1]};
}

mx::array layer_norm_composed(const mx::array& x, const mx::array& weight, const mx::array& bias,
                              float eps, mx::Stream s) {
  return mx::fast::layer_norm(x, mx::astype(weight, x.dtype(), s), mx::astype(bias, x.dtype(), s),
                              eps, s);
}

// ---- LayerNorm ----------------------------------------------------------------------------------

Arrays LayerNorm::vjp(const Arrays& primals, const Arrays& cotangents,
                      const std::vector<int>& argnums, const Arrays& outputs) {
  const int weight = options_.has_delta ? 2 : 1;
  Arrays inputs = {options_.has_delta ? outputs[0] : primals[0], primals[weight],
                   cotangents.back()};
  if (options_.gives_sum) {
    inputs.push_back(cotangents[0]);
  }
  const Arrays gradients = outputs_of(std::make_shared<LayerNormVJP>(stream(), options_), inputs);
  Arrays ordered;
  for (int i : argnums) {
    ordered.push_back(gradients[i < weight ? 0 : i - weight + 1]);
  }
  return ordered;
}

Vectorised LayerNorm::vmap(const Arrays& inputs, const std::vector<int>& axes) {
  return vmap_by_either(inputs, axes, options_.has_delta ? 2 : 1, anew<LayerNorm>(), stream());
}

std::vector<mx::Shape> LayerNorm::output_shapes(const Arrays& inputs) {
  return std::vector<mx::Shape>(options_.gives_sum ? 2 : 1, inputs[0].shape());
}

std::vector<mx::Dtype> LayerNorm::output_dtypes(const Arrays& inputs) const {
  return std::vector<mx::Dtype>(options_.gives_sum ? 2 : 1, inputs[0].dtype());
}

// ---- LayerNormVJP -------------------------------------------------------------------------------

Vectorised LayerNormVJP::vmap(const Arrays& inputs, const std::vector<int>& axes) {
  return vmap_by_loop(inputs, axes, anew<LayerNormVJP>(), stream());
}

std::vector<mx::Shape> LayerNormVJP::output_shapes(const Arrays& inputs) {
  return {inputs[0].shape(), inputs[1].shape(), inputs[1].shape()};
}

std::vector<mx::Dtype> LayerNormVJP::output_dtypes(const Arrays& inputs) const {
  return {inputs[0].dtype(), mx::float32, mx::float32};
}

}  // namespace mlx_esm_kernels
