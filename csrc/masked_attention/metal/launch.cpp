#include "masked_attention/metal/launch.h"

#include "ceil_div.h"
#include "masked_attention/metal/params.h"
#include "masked_attention/metal/tiles.h"
#include "metal/operand.h"
#include "metal/sources.h"

namespace mlx_esm_kernels {

namespace {

using metal::Buffer;
using metal::Launch;
using metal::Plan;
using Role = metal::Buffer::Role;

int32_t map_words(int L) {
  return static_cast<int32_t>(ceil_div(ceil_div(L, kBlock), kBlocksOfWord));
}

HeadStrides strides(const mx::array& x) {
  const mx::Strides& s = x.strides();
  return {s[0], s[1], s[2], s[3]};
}

metal::Source kernel_source(AttentionKernel kernel, int D, mx::Dtype dtype, AttentionTiles tiles) {
  static const char* const kFiles[] = {"masked_attention/metal/fwd.metal",
                                       "masked_attention/metal/bwd_dq.metal",
                                       "masked_attention/metal/bwd_dkv.metal"};
  return metal::source_of(kFiles[static_cast<int>(kernel)],
                          {{"ELEMENT", metal::element_name(dtype)},
                           {"HEAD_DIM", std::to_string(D)},
                           {"ROWS", std::to_string(tiles.rows)},
                           {"TILE", std::to_string(tiles.tile)},
                           {"HELD", attention_holds_keys(D) ? "1" : "0"}});
}

metal::Source map_source() {
  return metal::source_of("masked_attention/metal/map.metal", {{"ELEMENT", "float"}});
}

metal::Source bias_source(int D) {
  return metal::source_of("masked_attention/metal/bwd_bias.metal",
                          {{"ELEMENT", "float"}, {"HEAD_DIM", std::to_string(D)}});
}

// A kernel of one head's rows: source, constants, grid and group.
Launch launch_over_rows(AttentionKernel kernel, const mx::array& q, const AttentionOptions& options,
                        bool vectors, AttentionTiles tiles) {
  static const char* const kNames[] = {"masked_attention_fwd", "masked_attention_bwd_dq",
                                       "masked_attention_bwd_dkv"};
  const int D = q.shape(3);
  metal::Source source = kernel_source(kernel, D, q.dtype(), tiles);
  Launch launch;
  launch.library = source.library;
  launch.source = source.text;
  launch.kernel = kNames[static_cast<int>(kernel)];
  launch.function_constants = {{0, options.has_segments}, {1, options.has_bias}, {2, vectors}};
  launch.grid = {ceil_div(q.shape(2), tiles.rows), q.shape(1), q.shape(0)};
  launch.group = {tiles.rows / kFragment * kLanesOfSimdgroup, 1, 1};
  launch.threadgroup_bytes = attention_threadgroup_bytes(kernel, D, q.dtype(), tiles);
  return launch;
}

Launch map_launch(const mx::array& q, int ids, int map) {
  const int B = q.shape(0), L = q.shape(2);
  metal::Source source = map_source();
  Launch launch;
  launch.library = source.library;
  launch.source = source.text;
  launch.kernel = "masked_attention_map";
  launch.buffers = {{0, Role::input, ids}, {1, Role::output, map, true}};
  launch.constants = {metal::constants(2, AttentionMapParams{B, L, map_words(L)})};
  launch.grid = {map_words(L), ceil_div(L, kBlock), B};
  launch.group = {kLanesOfSimdgroup, 1, 1};
  launch.threadgroup_bytes = kBlock * 8;
  return launch;
}

Launch bias_launch(const mx::array& q, int parts_index, int64_t parts) {
  const int B = q.shape(0), H = q.shape(1);
  metal::Source source = bias_source(q.shape(3));
  Launch launch;
  launch.library = source.library;
  launch.source = source.text;
  launch.kernel = "masked_attention_bwd_bias";
  launch.buffers = {
      {0, Role::temporary, parts_index}, {1, Role::output, 3, true}, {2, Role::output, 4, true}};
  launch.constants = {metal::constants(3, AttentionBiasParams{B, H, static_cast<int32_t>(parts)})};
  launch.grid = {1, H, 2};
  launch.group = {kMaxHeadDim, 1, 1};
  return launch;
}

}  // namespace

mx::Shape attention_map_shape(int B, int L) {
  return {B, static_cast<int>(ceil_div(L, kBlock)), map_words(L), 2};
}

Plan attention_forward_plan(const Arrays& inputs, const Arrays& outputs,
                            const AttentionOptions& options, int generation) {
  const mx::array &q = inputs[0], &k = inputs[1], &v = inputs[2], &o = outputs[0];
  const AttentionTiles tiles =
      attention_tiles(AttentionKernel::fwd, q.shape(3), q.dtype(), generation);
  // Kernels read no segments and no biases where there are none; something must be bound.
  const int ids = options.has_segments ? 3 : 0;
  const int bias_k = options.has_bias ? (options.has_segments ? 4 : 3) : 0;
  const int bias_v = options.has_bias ? bias_k + 1 : 0;

  Plan plan;
  if (options.has_segments) {
    plan.launches.push_back(map_launch(q, ids, 2));
  }
  Launch launch = launch_over_rows(AttentionKernel::fwd, q, options,
                                   metal::takes_vectors({&q, &k, &v, &o}), tiles);
  launch.buffers = {{0, Role::input, 0},
                    {1, Role::input, 1},
                    {2, Role::input, 2},
                    {3, Role::output, 0, true},
                    {4, Role::output, 1, true},
                    {6, Role::input, ids},
                    options.has_segments ? Buffer{7, Role::output, 2} : Buffer{7, Role::input, 0},
                    {8, Role::input, bias_k},
                    {9, Role::input, bias_v}};
  launch.constants = {metal::constants(
      5, AttentionForwardParams{q.shape(0), q.shape(1), q.shape(2), map_words(q.shape(2)),
                                options.scale, 0, strides(q), strides(k), strides(v), strides(o)})};
  plan.launches.push_back(std::move(launch));
  return plan;
}

Plan attention_backward_plan(const Arrays& inputs, const Arrays& outputs,
                             const AttentionOptions& options, int generation) {
  const mx::array &q = inputs[0], &k = inputs[1], &v = inputs[2], &o = inputs[3], &dout = inputs[5];
  const int64_t B = q.shape(0), H = q.shape(1), L = q.shape(2), D = q.shape(3);
  const auto tiles = [&](AttentionKernel kernel) {
    return attention_tiles(kernel, q.shape(3), q.dtype(), generation);
  };
  const AttentionTiles dq_tiles = tiles(AttentionKernel::bwd_dq);
  const int ids = options.has_segments ? 6 : 0;
  const int map = options.has_segments ? 7 : 0;
  const int bias_k = options.has_bias ? (options.has_segments ? 8 : 6) : 0;
  const int bias_v = options.has_bias ? bias_k + 1 : 0;
  const metal::Constants params = metal::constants(
      8, AttentionBackwardParams{q.shape(0), q.shape(1), q.shape(2), map_words(q.shape(2)),
                                 options.scale, 0, strides(q), strides(k), strides(v), strides(o),
                                 strides(dout), strides(outputs[0]), strides(outputs[1]),
                                 strides(outputs[2])});
  const bool vectors =
      metal::takes_vectors({&q, &k, &v, &o, &dout, &outputs[0], &outputs[1], &outputs[2]});

  Plan plan;
  constexpr int kDelta = 0, kParts = 1;
  plan.temporaries.push_back(B * H * L * 4);
  const int64_t parts = ceil_div(L, dq_tiles.rows) * (dq_tiles.rows / kFragment);
  if (options.has_bias) {
    plan.temporaries.push_back(2 * B * H * parts * D * 4);
  }

  Launch dq = launch_over_rows(AttentionKernel::bwd_dq, q, options, vectors, dq_tiles);
  dq.buffers = {
      {0, Role::input, 0},
      {1, Role::input, 1},
      {2, Role::input, 2},
      {3, Role::input, 3},
      {4, Role::input, 4},
      {5, Role::input, 5},
      {6, Role::output, 0, true},
      {7, Role::temporary, kDelta, true},
      {9, Role::input, ids},
      {10, Role::input, map},
      {11, Role::input, bias_k},
      {12, Role::input, bias_v},
      options.has_bias ? Buffer{13, Role::temporary, kParts, true} : Buffer{13, Role::input, 0}};
  dq.constants = {params};
  plan.launches.push_back(std::move(dq));

  Launch dkv = launch_over_rows(AttentionKernel::bwd_dkv, q, options, vectors,
                                tiles(AttentionKernel::bwd_dkv));
  dkv.buffers = {{0, Role::input, 0},        {1, Role::input, 1},          {2, Role::input, 2},
                 {3, Role::input, 4},        {4, Role::temporary, kDelta}, {5, Role::input, 5},
                 {6, Role::output, 1, true}, {7, Role::output, 2, true},   {9, Role::input, ids},
                 {10, Role::input, map}};
  dkv.constants = {params};
  plan.launches.push_back(std::move(dkv));

  if (options.has_bias) {
    plan.launches.push_back(bias_launch(q, kParts, parts));
  }
  return plan;
}

std::vector<std::string> attention_sources(int D, mx::Dtype dtype, int generation) {
  std::vector<std::string> texts = {map_source().text, bias_source(D).text};
  for (const AttentionKernel kernel :
       {AttentionKernel::fwd, AttentionKernel::bwd_dq, AttentionKernel::bwd_dkv}) {
    texts.push_back(
        kernel_source(kernel, D, dtype, attention_tiles(kernel, D, dtype, generation)).text);
  }
  return texts;
}

}  // namespace mlx_esm_kernels
