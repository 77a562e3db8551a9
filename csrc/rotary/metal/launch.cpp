#include "rotary/metal/launch.h"

#include <limits>

#include "ceil_div.h"
#include "metal/operand.h"
#include "metal/sources.h"
#include "rotary/metal/params.h"

namespace mlx_esm_kernels {

namespace {

using Role = metal::Buffer::Role;

const metal::Source& source(mx::Dtype dtype) {
  return metal::source_of("rotary/metal/turn.metal", {{"ELEMENT", metal::element_name(dtype)}});
}

// Threads that turn a row of the batch.
int64_t threads_of_row(const mx::array& x) {
  return static_cast<int64_t>(x.shape(1)) * x.shape(2) * ceil_div(x.shape(3) / 2, kTurnPairs);
}

}  // namespace

bool rotary_served(const mx::array& x) {
  return threads_of_row(x) <= std::numeric_limits<int32_t>::max() - kTurnThreads;
}

metal::Plan rotary_plan(const Arrays& inputs, const Arrays& outputs, const RotaryOptions& options) {
  const mx::array &x = inputs[0], &angles = inputs[1], &out = outputs[0];
  const mx::Strides &from = x.strides(), &to = out.strides();
  metal::Launch launch;
  launch.source = &source(x.dtype());
  launch.kernel = "rotary_turn";
  const bool whole = x.shape(3) / 2 % kTurnPairs == 0;
  launch.function_constants = {{0, whole && metal::takes_vectors({&x, &angles, &out})}};
  launch.buffers = {{0, Role::input, 0}, {1, Role::input, 1}, {2, Role::output, 0, true}};
  launch.constants = {metal::constants(
      3, RotaryParams{x.shape(1), x.shape(2), x.shape(3), options.back ? -1.0f : 1.0f, from[0],
                      from[1], from[2], from[3], to[0], to[1], to[2]})};
  launch.grid = {ceil_div(threads_of_row(x), kTurnThreads), 1, x.shape(0)};
  launch.group = {kTurnThreads, 1, 1};
  metal::Plan plan;
  plan.launches = {std::move(launch)};
  return plan;
}

std::vector<std::string> rotary_sources(mx::Dtype dtype) {
  return {source(dtype).text};
}

}  // namespace mlx_esm_kernels
