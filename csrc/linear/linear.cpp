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
  if (weight.dtype() != x.dtype() && weight.dtype() != mx::float32) {
    fail(kOp, "weight must have the dtype of x or be float32; got x of " + text(x.dtype()) +
                  " and weight of " + text(weight.dtype()) + ".");
  }
  if (bias) {
    expect_shape(kOp, "bias", *bias, {O}, "(O,)");
    expect_floating(kOp, "bias", *bias);
  }
}

// A weight as the op reads it: one of another dtype than x's is rounded a panel at a time, and lies
// row after row.
mx::array readable(const mx::array& weight, const mx::array& x, mx::Stream s) {
  return weight.dtype() == x.dtype() ? weight : contiguous_as(weight, mx::float32, s);
}

// Outside of a transformation no one can ask for a gradient later.
bool may_be_differentiated(const Arrays& inputs) {
  return std::any_of(inputs.begin(), inputs.end(),
                     [](const mx::array& x) { return x.is_tracer(); });
}

}  // namespace

bool is_gelu(const char* op, const std::optional<std::string>& activation) {
  if (activation && *activation != "gelu") {
    fail(op, "activation must be None or \"gelu\"; got \"" + *activation + "\".");
  }
  return activation.has_value();
}

mx::Shape linear_shape(const char* op, const mx::array& x, const mx::array& weight,
                       const std::optional<mx::array>& residual) {
  mx::Shape shape = x.shape();
  shape.back() = weight.shape(0);
  if (residual) {
    expect_shape(op, "residual", *residual, shape, "(..., O)");
    if (residual->dtype() != x.dtype()) {
      fail(op, "x and residual must have one dtype; got " + text(x.dtype()) + " and " +
                   text(residual->dtype()) + ".");
    }
  }
  return shape;
}

mx::array linear(const mx::array& x, const mx::array& weight, const std::optional<mx::array>& bias,
                 const std::optional<std::string>& activation,
                 const std::optional<mx::array>& residual, mx::StreamOrDevice s) {
  check(x, weight, bias);
  const bool gelu = is_gelu(kOp, activation);
  const mx::Stream stream = mx::to_stream(s);
  const mx::Shape shape = linear_shape(kOp, x, weight, residual);
  if (stream.device != mx::Device::cpu) {
    const mx::array y = linear_composed(x, weight, bias, gelu, stream);
    return residual ? mx::add(y, *residual, stream) : y;
  }
  Arrays inputs = {as_rows(x, stream)};
  if (residual) {
    inputs.push_back(mx::contiguous(as_rows(*residual, stream), false, stream));
  }
  inputs.push_back(readable(weight, x, stream));
  if (bias) {
    inputs.push_back(contiguous_as(*bias, mx::float32, stream));
  }
  const LinearOptions options{1, bias.has_value(), gelu, gelu && may_be_differentiated(inputs),
                              residual.has_value()};
  const Arrays outputs = outputs_of(std::make_shared<Linear>(stream, options), inputs);
  return mx::reshape(outputs.front(), shape, stream);
}

Arrays linears(const mx::array& x, const Arrays& weights, const Arrays& biases,
               mx::StreamOrDevice s) {
  if (weights.empty() || (!biases.empty() && biases.size() != weights.size())) {
    fail(kOp, "weights must be one or more, and biases as many or none; got " +
                  std::to_string(weights.size()) + " and " + std::to_string(biases.size()) + ".");
  }
  const mx::Stream stream = mx::to_stream(s);
  const auto bias = [&](size_t i) {
    return biases.empty() ? std::nullopt : std::optional(biases[i]);
  };
  for (size_t i = 0; i < weights.size(); ++i) {
    check(x, weights[i], bias(i));
  }
  Arrays outputs;
  if (stream.device != mx::Device::cpu) {
    for (size_t i = 0; i < weights.size(); ++i) {
      outputs.push_back(linear_composed(x, weights[i], bias(i), false, stream));
    }
    return outputs;
  }
  Arrays inputs = {as_rows(x, stream)};
  for (const mx::array& weight : weights) {
    inputs.push_back(readable(weight, x, stream));
  }
  for (const mx::array& b : biases) {
    inputs.push_back(contiguous_as(b, mx::float32, stream));
  }
  const LinearOptions options{static_cast<int>(weights.size()), !biases.empty(), false, false,
                              false};
  outputs = outputs_of(std::make_shared<Linear>(stream, options), inputs);
  for (size_t i = 0; i < weights.size(); ++i) {
    outputs[i] = mx::reshape(outputs[i], linear_shape(kOp, x, weights[i], std::nullopt), stream);
  }
  return outputs;
}

mx::array linear_composed(const mx::array& x, const mx::array& weight,
                          const std::optional<mx::array>& bias, bool gelu, mx::Stream s) {
  const mx::array weight_t = mx::transpose(mx::astype(weight, x.dtype(), s), s);
  const mx::array h = bias ? mx::addmm(mx::astype(*bias, x.dtype(), s), x, weight_t, 1.0f, 1.0f, s)
                           : mx::matmul(x, weight_t, s);
  if (!gelu) {
    return h;
  }
  return mx::astype(gelu_composed(mx::astype(h, mx::float32, s), s), x.dtype(), s);
}

mx::array gelu_composed(const mx::array& h, mx::Stream s) {
  const auto constant = [](float value) { return mx::array(value); };
  const mx::array erf = mx::erf(mx::multiply(h, constant(1 / std::sqrt(2.0f)), s), s);
  const mx::array cdf = mx::multiply(mx::add(erf, constant(1.0f), s), constant(0.5f), s);
  return mx::multiply(h, cdf, s);
}

// ---- Linear -------------------------------------------------------------------------------------

Arrays Linear::vjp(const Arrays& primals, const Arrays& cotangents, const std::vector<int>& argnums,
                   const Arrays& outputs) {
  // Of the inputs: x, [residual], weights, [biases].
  const int layers = options_.layers, weights = options_.has_residual ? 2 : 1;
  const int biases = weights + layers;
  const auto wants = [&](int begin, int end) {
    return std::any_of(argnums.begin(), argnums.end(),
                       [&](int i) { return i >= begin && i < end; });
  };
  const LinearGradients wanted{layers, wants(0, 1), wants(weights, biases),
                               wants(biases, biases + layers), options_.gelu};
  Arrays gradients;
  if (wanted.x || wanted.weights || wanted.biases) {
    Arrays inputs = {primals[0]};
    inputs.insert(inputs.end(), primals.begin() + weights, primals.begin() + biases);
    inputs.insert(inputs.end(), cotangents.begin(), cotangents.begin() + layers);
    if (options_.keeps) {
      inputs.insert(inputs.end(), outputs.begin() + layers, outputs.end());
    } else if (options_.gelu) {
      fail(kOp, "the values before GELU were not kept, as no input was being differentiated.");
    }
    gradients = outputs_of(std::make_shared<LinearVJP>(stream(), wanted), inputs);
  }
  // The gradients come in the order x, weights, biases; argnums may have any order.
  Arrays ordered;
  for (int i : argnums) {
    if (options_.has_residual && i == 1) {
      ordered.push_back(cotangents[0]);
    } else if (i == 0) {
      ordered.push_back(gradients[0]);
    } else if (i < biases) {
      ordered.push_back(gradients[wanted.x + i - weights]);
    } else {
      ordered.push_back(gradients[wanted.x + (wanted.weights ? layers : 0) + i - biases]);
    }
  }
  return ordered;
}

Vectorised Linear::vmap(const Arrays& inputs, const std::vector<int>& axes) {
  return vmap_by_either(inputs, axes, options_.has_residual ? 2 : 1, anew<Linear>(), stream());
}

std::vector<mx::Shape> Linear::output_shapes(const Arrays& inputs) {
  std::vector<mx::Shape> shapes;
  for (int i = 0; i < (options_.keeps ? 2 : 1) * options_.layers; ++i) {
    const mx::array& weight = inputs[(options_.has_residual ? 2 : 1) + i % options_.layers];
    shapes.push_back({inputs[0].shape(0), weight.shape(0)});
  }
  return shapes;
}

std::vector<mx::Dtype> Linear::output_dtypes(const Arrays& inputs) const {
  return std::vector<mx::Dtype>((options_.keeps ? 2 : 1) * options_.layers, inputs[0].dtype());
}

// ---- LinearVJP ----------------------------------------------------------------------------------

Vectorised LinearVJP::vmap(const Arrays& inputs, const std::vector<int>& axes) {
  return vmap_by_loop(inputs, axes, anew<LinearVJP>(), stream());
}

std::vector<mx::Shape> LinearVJP::output_shapes(const Arrays& inputs) {
  std::vector<mx::Shape> shapes;
  if (options_.x) {
    shapes.push_back(inputs[0].shape());
  }
  for (int i = 1; options_.weights && i <= options_.layers; ++i) {
    shapes.push_back(inputs[i].shape());
  }
  for (int i = 1; options_.biases && i <= options_.layers; ++i) {
    shapes.push_back({inputs[i].shape(0)});
  }
  return shapes;
}

std::vector<mx::Dtype> LinearVJP::output_dtypes(const Arrays& inputs) const {
  std::vector<mx::Dtype> dtypes;
  if (options_.x) {
    dtypes.push_back(inputs[0].dtype());
  }
  for (int i = 1; options_.weights && i <= options_.layers; ++i) {
    dtypes.push_back(inputs[i].dtype());
  }
  dtypes.resize(dtypes.size() + (options_.biases ? options_.layers : 0), mx::float32);
  return dtypes;
}

}  // namespace mlx_esm_kernels
