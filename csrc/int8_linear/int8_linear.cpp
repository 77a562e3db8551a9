#include "int8_linear/int8_linear.h"

#include <limits>

#include "graph/checks.h"
#include "int8_linear/cpu/compute.h"
#include "mlx/transforms.h"

namespace mlx_esm_kernels {

namespace {

constexpr const char* kOp = "int8_linear";

[[noreturn]] void refuse_gradient() {
  fail(kOp,
       "has no gradient: it is for inference; train the unquantised weights, of which these were "
       "made.");
}

void check(const mx::array& x, const mx::array& weight, const mx::array& scale,
           const std::optional<mx::array>& bias) {
  expect_floating(kOp, "x", x);
  if (weight.ndim() != 2 || weight.size() == 0) {
    fail(kOp, "weight must have shape (O, I) with O and I at least 1; got " + text(weight.shape()) +
                  ".");
  }
  if (weight.dtype() != mx::int8) {
    fail(kOp, "weight must be int8; got " + text(weight.dtype()) + ".");
  }
  const int O = weight.shape(0), I = weight.shape(1);
  if (I > cpu::kInt8MaxDepth) {
    fail(kOp, "I must be at most " + std::to_string(cpu::kInt8MaxDepth) +
                  ", beyond which a sum may not fit 32 bits; got " + std::to_string(I) + ".");
  }
  if (x.ndim() == 0 || x.shape(-1) != I) {
    fail(kOp, "x must have shape (..., I) with I = " + std::to_string(I) + " as in weight; got " +
                  text(x.shape()) + ".");
  }
  expect_shape(kOp, "scale", scale, {O}, "(O,)");
  expect_floating(kOp, "scale", scale);
  if (bias) {
    expect_shape(kOp, "bias", *bias, {O}, "(O,)");
    expect_floating(kOp, "bias", *bias);
  }
}

// MLX's own ops would give a gradient of 0, since rounding has none.
Arrays without_gradient(const Builder& build, const Arrays& inputs) {
  return mx::custom_vjp(build, [](const Arrays&, const Arrays&, const Arrays&) -> Arrays {
    refuse_gradient();
  })(inputs);
}

}  // namespace

mx::array int8_linear(const mx::array& x, const mx::array& weight, const mx::array& scale,
                      const std::optional<mx::array>& bias,
                      const std::optional<std::string>& activation,
                      const std::optional<mx::array>& residual, mx::StreamOrDevice s) {
  check(x, weight, scale, bias);
  const bool gelu = is_gelu(kOp, activation);
  const mx::Stream stream = mx::to_stream(s);
  const mx::Shape shape = linear_shape(kOp, x, weight, residual);
  if (stream.device != mx::Device::cpu) {
    return int8_linear_composed(x, weight, scale, bias, gelu, residual, stream);
  }
  Arrays inputs = {as_rows(x, stream)};
  if (residual) {
    inputs.push_back(mx::contiguous(as_rows(*residual, stream), false, stream));
  }
  inputs.push_back(contiguous_as(weight, mx::int8, stream));
  inputs.push_back(contiguous_as(scale, mx::float32, stream));
  if (bias) {
    inputs.push_back(contiguous_as(*bias, mx::float32, stream));
  }
  const LinearOptions options{1, bias.has_value(), gelu, false, residual.has_value()};
  const Arrays outputs = outputs_of(std::make_shared<Int8Linear>(stream, options), inputs);
  return mx::reshape(outputs.front(), shape, stream);
}

Arrays int8_linears(const mx::array& x, const Arrays& weights, const Arrays& scales,
                    const Arrays& biases, mx::StreamOrDevice s) {
  if (weights.empty() || scales.size() != weights.size() ||
      (!biases.empty() && biases.size() != weights.size())) {
    fail(kOp, "weights must be one or more, scales as many, and biases as many or none; got " +
                  std::to_string(weights.size()) + ", " + std::to_string(scales.size()) + " and " +
                  std::to_string(biases.size()) + ".");
  }
  const mx::Stream stream = mx::to_stream(s);
  const auto bias = [&](size_t i) {
    return biases.empty() ? std::nullopt : std::optional(biases[i]);
  };
  for (size_t i = 0; i < weights.size(); ++i) {
    check(x, weights[i], scales[i], bias(i));
  }
  Arrays outputs;
  if (stream.device != mx::Device::cpu) {
    for (size_t i = 0; i < weights.size(); ++i) {
      outputs.push_back(
          int8_linear_composed(x, weights[i], scales[i], bias(i), false, std::nullopt, stream));
    }
    return outputs;
  }
  Arrays inputs = {as_rows(x, stream)};
  for (const mx::array& weight : weights) {
    inputs.push_back(contiguous_as(weight, mx::int8, stream));
  }
  for (const Arrays& vectors : {scales, biases}) {
    for (const mx::array& vector : vectors) {
      inputs.push_back(contiguous_as(vector, mx::float32, stream));
    }
  }
  const LinearOptions options{static_cast<int>(weights.size()), !biases.empty(), false, false,
                              false};
  outputs = outputs_of(std::make_shared<Int8Linear>(stream, options), inputs);
  for (size_t i = 0; i < weights.size(); ++i) {
    outputs[i] = mx::reshape(outputs[i], linear_shape(kOp, x, weights[i], std::nullopt), stream);
  }
  return outputs;
}

mx::array int8_linear_composed(const mx::array& x, const mx::array& weight, const mx::array& scale,
                               const std::optional<mx::array>& bias, bool gelu,
                               const std::optional<mx::array>& residual, mx::Stream s) {
  const auto build = [&, s](const Arrays& inputs) -> Arrays {
    const mx::array wide = mx::astype(inputs[0], mx::float32, s);
    const mx::array largest = mx::max(mx::abs(wide, s), -1, true, s);
    // As the kernel has it: rows of almost nothing are zeros, rows that are not finite NaN.
    const mx::array nothing = mx::less(largest, mx::array(0x1p-100f), s);
    const mx::array safe = mx::where(nothing, mx::array(1.0f), largest, s);
    const mx::array units = mx::divide(mx::array(127.0f), safe, s);
    const mx::array q =
        mx::where(nothing, mx::array(0.0f), mx::round(mx::multiply(wide, units, s), 0, s), s);
    const mx::array finite = mx::isfinite(largest, s);
    const mx::array row_scale = mx::where(finite, mx::divide(largest, mx::array(127.0f), s),
                                          mx::array(std::numeric_limits<float>::quiet_NaN()), s);
    const mx::array weight_t = mx::transpose(mx::astype(inputs[1], mx::float32, s), s);
    mx::array y = mx::matmul(mx::where(finite, q, mx::array(0.0f), s), weight_t, s);
    y = mx::multiply(mx::multiply(y, row_scale, s), mx::astype(inputs[2], mx::float32, s), s);
    if (bias) {
      y = mx::add(y, mx::astype(inputs[3], mx::float32, s), s);
    }
    if (gelu) {
      y = gelu_composed(y, s);
    }
    if (residual) {
      y = mx::add(y, mx::astype(inputs.back(), mx::float32, s), s);
    }
    return {mx::astype(y, x.dtype(), s)};
  };
  Arrays inputs = {x, weight, scale};
  if (bias) {
    inputs.push_back(*bias);
  }
  if (residual) {
    inputs.push_back(*residual);
  }
  return without_gradient(build, inputs).front();
}

// ---- Int8Linear ---------------------------------------------------------------------------------

Arrays Int8Linear::vjp(const Arrays&, const Arrays&, const std::vector<int>&, const Arrays&) {
  refuse_gradient();
}

Vectorised Int8Linear::vmap(const Arrays& inputs, const std::vector<int>& axes) {
  return vmap_by_either(inputs, axes, options_.has_residual ? 2 : 1, anew<Int8Linear>(), stream());
}

std::vector<mx::Shape> Int8Linear::output_shapes(const Arrays& inputs) {
  std::vector<mx::Shape> shapes;
  for (int i = 0; i < options_.layers; ++i) {
    const mx::array& weight = inputs[(options_.has_residual ? 2 : 1) + i];
    shapes.push_back({inputs[0].shape(0), weight.shape(0)});
  }
  return shapes;
}

std::vector<mx::Dtype> Int8Linear::output_dtypes(const Arrays& inputs) const {
  return std::vector<mx::Dtype>(options_.layers, inputs[0].dtype());
}

}  // namespace mlx_esm_kernels
