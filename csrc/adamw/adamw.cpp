#include "adamw/adamw.h"

#include <algorithm>
#include <cmath>

#include "graph/checks.h"

namespace mlx_esm_kernels {

namespace {

constexpr const char* kOp = "adamw";

// Parameters of one primitive. MLX has every output know its siblings: as a single primitive the
// hundreds of outputs of a model would cost the square of their number.
constexpr size_t kTogether = 8;

void check_list(const char* name, const Arrays& arrays, const Arrays& weights) {
  if (arrays.size() != weights.size()) {
    fail(kOp, std::string(name) + " must be as many as weights, " + std::to_string(weights.size()) +
                  "; got " + std::to_string(arrays.size()) + ".");
  }
  for (size_t i = 0; i < arrays.size(); ++i) {
    const std::string item = std::string(name) + "[" + std::to_string(i) + "]";
    expect_floating(kOp, item.c_str(), arrays[i]);
    expect_shape(kOp, item.c_str(), arrays[i], weights[i].shape(), "of its weight");
  }
}

void check(const AdamWState& old, const Arrays& gradients, const mx::array& rates,
           const AdamWOptions& o) {
  check_list("weights", old.weights, old.weights);
  check_list("gradients", gradients, old.weights);
  check_list("m", old.m, old.weights);
  check_list("v", old.v, old.weights);
  expect_shape(kOp, "rates", rates, {3}, "(3,)");
  expect_floating(kOp, "rates", rates);
  for (const auto& [name, value] : {std::pair{"beta_1", o.beta_1}, {"beta_2", o.beta_2}}) {
    if (!(value >= 0 && value < 1)) {
      fail(kOp, std::string(name) + " must be at least 0 and below 1; got " +
                    std::to_string(value) + ".");
    }
  }
  if (!(o.clip_norm > 0)) {
    fail(kOp, "clip_norm must be above 0; got " + std::to_string(o.clip_norm) + ".");
  }
}

bool all_float32(const Arrays& arrays) {
  return std::all_of(arrays.begin(), arrays.end(),
                     [](const mx::array& x) { return x.dtype() == mx::float32; });
}

}  // namespace

AdamWResult adamw(const AdamWState& old, const Arrays& gradients, const mx::array& rates,
                  const AdamWOptions& options, mx::StreamOrDevice s) {
  check(old, gradients, rates, options);
  const mx::Stream stream = mx::to_stream(s);
  const bool served = all_float32(old.weights) && all_float32(gradients) && all_float32(old.m) &&
                      all_float32(old.v);
  if (stream.device != mx::Device::cpu || !served) {
    return adamw_composed(old, gradients, rates, options, stream);
  }
  const mx::array float_rates = contiguous_as(rates, mx::float32, stream);
  Arrays dense;
  for (const mx::array& g : gradients) {
    dense.push_back(contiguous_as(g, mx::float32, stream));
  }
  const mx::array norm = outputs_of(std::make_shared<GradientNorm>(stream, options), dense)[0];
  AdamWState next;
  for (size_t begin = 0; begin < gradients.size(); begin += kTogether) {
    const size_t end = std::min(begin + kTogether, gradients.size());
    Arrays inputs = {float_rates, norm};
    const auto add = [&](const Arrays& list) {
      for (size_t i = begin; i < end; ++i) {
        inputs.push_back(contiguous_as(list[i], mx::float32, stream));
      }
    };
    add(old.weights);
    inputs.insert(inputs.end(), dense.begin() + begin, dense.begin() + end);
    add(old.m);
    add(old.v);
    const Arrays outputs = outputs_of(std::make_shared<AdamW>(stream, options), inputs);
    auto first = outputs.begin();
    for (Arrays* list : {&next.weights, &next.m, &next.v}) {
      list->insert(list->end(), first, first + (end - begin));
      first += end - begin;
    }
  }
  return {next, norm};
}

AdamWResult adamw_composed(const AdamWState& old, const Arrays& gradients, const mx::array& rates,
                           const AdamWOptions& o, mx::Stream s) {
  const auto number = [](float x) { return mx::array(x); };
  const auto rate = [&](int i) { return mx::astype(mx::take(rates, i, s), mx::float32, s); };
  mx::array total = number(0);
  for (const mx::array& g : gradients) {
    total = mx::add(total, mx::sum(mx::square(mx::astype(g, mx::float32, s), s), s), s);
  }
  const mx::array norm = mx::sqrt(total, s);
  const mx::array clip =
      mx::divide(number(o.clip_norm), mx::maximum(norm, number(o.clip_norm), s), s);
  const mx::array kept =
      mx::subtract(number(1), mx::multiply(rate(0), number(o.weight_decay), s), s);
  AdamWState next;
  for (size_t i = 0; i < gradients.size(); ++i) {
    const auto wide = [&](const mx::array& x) { return mx::astype(x, mx::float32, s); };
    const mx::array g = mx::multiply(wide(gradients[i]), clip, s);
    const mx::array m = mx::add(mx::multiply(number(o.beta_1), wide(old.m[i]), s),
                                mx::multiply(number(1 - o.beta_1), g, s), s);
    const mx::array v = mx::add(mx::multiply(number(o.beta_2), wide(old.v[i]), s),
                                mx::multiply(number(1 - o.beta_2), mx::square(g, s), s), s);
    const mx::array step =
        mx::divide(mx::multiply(rate(1), m, s), mx::add(mx::sqrt(v, s), rate(2), s), s);
    mx::array w = wide(old.weights[i]);
    w = mx::subtract(w.ndim() > 1 ? mx::multiply(kept, w, s) : w, step, s);
    next.weights.push_back(mx::astype(w, old.weights[i].dtype(), s));
    next.m.push_back(mx::astype(m, old.m[i].dtype(), s));
    next.v.push_back(mx::astype(v, old.v[i].dtype(), s));
  }
  return {next, norm};
}

Arrays AdamWPart::jvp(const Arrays&, const Arrays&, const std::vector<int>&) {
  fail(kOp, "a step has no derivative; differentiate the loss, then take the step.");
}

Arrays AdamWPart::vjp(const Arrays&, const Arrays&, const std::vector<int>&, const Arrays&) {
  fail(kOp, "a step has no derivative; differentiate the loss, then take the step.");
}

Vectorised AdamWPart::vmap(const Arrays&, const std::vector<int>&) {
  fail(kOp, "a step cannot be vmapped, since its norm is that of all parameters; call it in turn.");
}

std::vector<mx::Shape> GradientNorm::output_shapes(const Arrays&) {
  return {{}};
}

std::vector<mx::Dtype> GradientNorm::output_dtypes(const Arrays&) const {
  return {mx::float32};
}

std::vector<mx::Shape> AdamW::output_shapes(const Arrays& inputs) {
  const size_t count = (inputs.size() - 2) / 4;
  std::vector<mx::Shape> shapes;
  for (size_t i = 0; i < 3 * count; ++i) {
    shapes.push_back(inputs[2 + i % count].shape());
  }
  return shapes;
}

std::vector<mx::Dtype> AdamW::output_dtypes(const Arrays& inputs) const {
  return std::vector<mx::Dtype>((inputs.size() - 2) / 4 * 3, mx::float32);
}

}  // namespace mlx_esm_kernels
