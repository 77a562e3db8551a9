#include "rotary/rotary.h"

#include "graph/checks.h"
#include "metal/device.h"
#include "rotary/metal/launch.h"

namespace mlx_esm_kernels {

namespace {

constexpr const char* kOp = "rotary";

void check(const mx::array& x, const mx::array& angles) {
  if (x.ndim() != 4) {
    fail(kOp, "x must have shape (B, H, L, D); got " + text(x.shape()) + ".");
  }
  expect_floating(kOp, "x", x);
  if (x.shape(3) % 2 != 0) {
    fail(kOp, "the head dim D must be even; got " + std::to_string(x.shape(3)) + ".");
  }
  expect_shape(kOp, "angles", angles, {x.shape(0), x.shape(2), x.shape(3)}, "(B, L, D)");
  if (angles.dtype() != mx::float32) {
    fail(kOp, "angles must be float32 whatever the dtype of x; got " + text(angles.dtype()) + ".");
  }
}

// The two halves of the last axis, in float32.
Arrays halves(const mx::array& x, mx::Stream s) {
  return mx::split(mx::astype(x, mx::float32, s), 2, -1, s);
}

// (B, L, D) beside (B, H, L, D).
mx::array beside_heads(const mx::array& angles, mx::Stream s) {
  return mx::expand_dims(angles, 1, s);
}

// What the cosines and sines of a turned x get of a cotangent: sums over heads, (B, L, D).
mx::array angles_gradient(const mx::array& x, const mx::array& cotangent, mx::Stream s) {
  const Arrays from = halves(x, s), to = halves(cotangent, s);
  const auto sum = [&](const mx::array& terms) { return mx::sum(terms, 1, false, s); };
  const mx::array of_cosines = sum(mx::add(mx::multiply(from[0], to[0], s),  //
                                           mx::multiply(from[1], to[1], s), s));
  const mx::array of_sines =
      sum(mx::subtract(mx::multiply(from[0], to[1], s), mx::multiply(from[1], to[0], s), s));
  return mx::concatenate({of_cosines, of_sines}, -1, s);
}

}  // namespace

mx::array rotary(const mx::array& x, const mx::array& angles, bool fused, mx::StreamOrDevice s) {
  check(x, angles);
  const mx::Stream stream = mx::to_stream(s);
  if (x.size() == 0) {
    return mx::zeros_like(x, stream);
  }
  const bool on_metal = metal::runs_on(stream);
  const bool served = on_metal ? rotary_served(x) : stream.device == mx::Device::cpu;
  if (!fused || !served) {
    return rotary_composed(x, angles, stream);
  }
  const RotaryOptions options{false, on_metal};
  return outputs_of(std::make_shared<Rotary>(stream, options),
                    {x, contiguous_as(angles, mx::float32, stream)})
      .front();
}

mx::array rotary_composed(const mx::array& x, const mx::array& angles, mx::Stream s) {
  const Arrays of = halves(x, s), turn = halves(beside_heads(angles, s), s);
  const mx::array a = mx::subtract(mx::multiply(of[0], turn[0], s),  //
                                   mx::multiply(of[1], turn[1], s), s);
  const mx::array b = mx::add(mx::multiply(of[1], turn[0], s),  //
                              mx::multiply(of[0], turn[1], s), s);
  return mx::astype(mx::concatenate({a, b}, -1, s), x.dtype(), s);
}

Arrays Rotary::vjp(const Arrays& primals, const Arrays& cotangents, const std::vector<int>& argnums,
                   const Arrays&) {
  Arrays wanted;
  for (int i : argnums) {
    if (i == 0) {
      const RotaryOptions back{!options_.back, options_.on_metal};
      wanted.push_back(
          outputs_of(std::make_shared<Rotary>(stream(), back), {cotangents[0], primals[1]})
              .front());
    } else {
      // Turning back, y and x change places.
      const mx::array &from = options_.back ? cotangents[0] : primals[0],
                      &to = options_.back ? primals[0] : cotangents[0];
      wanted.push_back(angles_gradient(from, to, stream()));
    }
  }
  return wanted;
}

Vectorised Rotary::vmap(const Arrays& inputs, const std::vector<int>& axes) {
  return vmap_by_folding(inputs, axes, inputs.size(), anew<Rotary>(), stream());
}

std::vector<mx::Shape> Rotary::output_shapes(const Arrays& inputs) {
  return {inputs[0].shape()};
}

std::vector<mx::Dtype> Rotary::output_dtypes(const Arrays& inputs) const {
  return {inputs[0].dtype()};
}

metal::Plan Rotary::plan(const Arrays& inputs, const Arrays& outputs, int) const {
  return rotary_plan(inputs, outputs, options_);
}

void Rotary::allocate(Arrays& outputs) const {
  allocate_heads_last(outputs[0]);
}

}  // namespace mlx_esm_kernels
