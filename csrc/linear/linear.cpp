#include "linear/linear.h"

#include <algorithm>
#include <cmath>

#include "graph/checks.h"

namespace mlx_esm_kernels {

namespace {

constexpr const char* kOp = "linear";

void check(const mx::array& x, const mx::array& weight, const std::optional<mx::array>& bias) {
  expect_floating(kOp, "x", x);
  if (weight.ndim() != 2) {
    fail(kOp, "weight must have shape (O, I); got " + text(weight.shape()) + ".");
  }
  const int O = weight.shape(0), I = weight.shape(1);
  if (O == 0 || I == 0) {
    fail(kOp, "weight must have shape (O, I) with O and I at least 1; got " + text(weight.shape()) +
                  ".");
  }
  if (x.ndim() == 0 || x.shape(-1) != I) {
    fail(kOp, "x must have shape (..., I) with I = " + std::to_string(I) + " as in weight; got " +
                  text(x.shape()) + ".");
  }
  if (weight.dtype() != x.dtype()) {
    fail(kOp, "x and weight must have one dtype; got " + text(x.dtype()) + " and " +
                  text(weight.dtype()) + ".");
  }
  if (bias) {
    expect_shape(kOp, "bias", *bias, {O}, "(O,)");
    expect_floating(kOp, "bias", *bias);
  }
}

bool is_gelu(const std::optional<std::string>& activation) {
  if (activation && *activation != "gelu") {
    fail(kOp, "activation must be None or \"gelu\"; got \"" + *activation + "\".");
  }
  return activation.has_value();
}

}  // namespace

mx::array linear(const mx::array& x, const mx::array& weight, const std::optional<mx::array>& bias,
                 const std::optional<std::string>& activation, mx::StreamOrDevice s) {
  check(x, weight, bias);
  const bool gelu = is_gelu(activation);
  const mx::Stream stream = mx::to_stream(s);
  mx::Shape shape = x.shape();
  shape.back() = weight.shape(0);
  if (stream.device != mx::Device::cpu) {
    return linear_composed(x, weight, bias, gelu, stream);
  }
  const int I = weight.shape(1);
  Arrays inputs = {mx::reshape(x, {static_cast<int>(x.size() / I), I}, stream), weight};
  if (bias) {
    inputs.push_back(contiguous_as(*bias, mx::float32, stream));
  }
  const auto primitive = std::make_shared<Linear>(stream, LinearOptions{bias.has_value(), gelu});
  return mx::reshape(outputs_of(primitive, inputs).front(), shape, stream);
}

mx::array linear_composed(const mx::array& x, const mx::array& weight,
                          const std::optional<mx::array>& bias, bool gelu, mx::Stream s) {
  const mx::array weight_t = mx::transpose(weight, s);
  const mx::array h = bias ? mx::addmm(mx::astype(*bias, x.dtype(), s), x, weight_t, 1.0f, 1.0f, s)
                           : mx::matmul(x, weight_t, s);
  if (!gelu) {
    return h;
  }
  const auto constant = [](float value) { return mx::array(value); };
  const mx::array wide = mx::astype(h, mx::float32, s);
  const mx::array erf = mx::erf(mx::multiply(wide, constant(1 / std::sqrt(2.0f)), s), s);
  const mx::array cdf = mx::multiply(mx::add(erf, constant(1.0f), s), constant(0.5f), s);
  return mx::astype(mx::multiply(wide, cdf, s), x.dtype(), s);
}

// ---- Linear -------------------------------------------------------------------------------------

Arrays Linear::vjp(const Arrays& primals, const Arrays& cotangents, const std::vector<int>& argnums,
                   const Arrays& outputs) {
  const auto wants = [&](int i) {
    return std::find(argnums.begin(), argnums.end(), i) != argnums.end();
  };
  Arrays inputs = {primals[0], primals[1], cotangents[0]};
  if (options_.gelu) {
    inputs.push_back(outputs[1]);
  }
  const LinearGradients wanted{wants(0), wants(1), wants(2), options_.gelu};
  const Arrays gradients = outputs_of(std::make_shared<LinearVJP>(stream(), wanted), inputs);
  // The gradients come in the order x, weight, bias; argnums may have any order.
  Arrays ordered;
  for (int i : argnums) {
    const int before = (i > 0 && wanted.x) + (i > 1 && wanted.weight);
    ordered.push_back(gradients[before]);
  }
  return ordered;
}

Vectorised Linear::vmap(const Arrays& inputs, const std::vector<int>& axes) {
  const Builder build = [&](const Arrays& x) {
    return outputs_of(std::make_shared<Linear>(stream(), options_), x);
  };
  return any_mapped(axes, 1) ? vmap_by_loop(inputs, axes, build, stream())
                             : vmap_by_folding(inputs, axes, 1, build, stream());
}

std::vector<mx::Shape> Linear::output_shapes(const Arrays& inputs) {
  const mx::Shape y = {inputs[0].shape(0), inputs[1].shape(0)};
  return options_.gelu ? std::vector<mx::Shape>{y, y} : std::vector<mx::Shape>{y};
}

std::vector<mx::Dtype> Linear::output_dtypes(const Arrays& inputs) const {
  return std::vector<mx::Dtype>(options_.gelu ? 2 : 1, inputs[0].dtype());
}

// ---- LinearVJP ----------------------------------------------------------------------------------

Vectorised LinearVJP::vmap(const Arrays& inputs, const std::vector<int>& axes) {
  const Builder build = [&](const Arrays& x) {
    return outputs_of(std::make_shared<LinearVJP>(stream(), options_), x);
  };
  return vmap_by_loop(inputs, axes, build, stream());
}

std::vector<mx::Shape> LinearVJP::output_shapes(const Arrays& inputs) {
  std::vector<mx::Shape> shapes;
  if (options_.x) {
    shapes.push_back(inputs[0].shape());
  }
  if (options_.weight) {
    shapes.push_back(inputs[1].shape());
  }
  if (options_.bias) {
    shapes.push_back({inputs[1].shape(0)});
  }
  return shapes;
}

std::vector<mx::Dtype> LinearVJP::output_dtypes(const Arrays& inputs) const {
  std::vector<mx::Dtype> dtypes(options_.x + options_.weight, inputs[0].dtype());
  if (options_.bias) {
    dtypes.push_back(mx::float32);
  }
  return dtypes;
}

}  // namespace mlx_esm_kernels
