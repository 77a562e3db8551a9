#include "masked_attention/metal/launch.h"

#include "ceil_div.h"
#include "masked_attention/metal/params.h"
#include "masked_attention/metal/tiles.h"
#include "metal/launch_budget.h"
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

const char* const kNames[] = {"fwd", "bwd_dq", "bwd_dkv"};

const metal::Source& kernel_source(AttentionKernel kernel, int D, mx::Dtype dtype,
                                   AttentionTiles tiles) {
  return metal::source_of(
      std::string("masked_attention/metal/") + kNames[static_cast<int>(kernel)] + ".metal",
      {{"ELEMENT", metal::element_name(dtype)},
       {"HEAD_DIM", std::to_string(D)},
       {"ROWS", std::to_string(tiles.rows)},
       {"TILE", std::to_string(tiles.tile)},
       {"ROW_FRAGMENTS", std::to_string(tiles.row_fragments)},
       {"HELD", tiles.held ? "1" : "0"},
       {"FENCED", tiles.fenced ? "1" : "0"}});
}

const metal::Source& map_source() {
  return metal::source_of("masked_attention/metal/map.metal", {{"ELEMENT", "float"}});
}

const metal::Source& bias_source(int D) {
  return metal::source_of("masked_attention/metal/bwd_bias.metal",
                          {{"ELEMENT", "float"}, {"HEAD_DIM", std::to_string(D)}});
}

// A kernel of one head's rows: source, constants, grid and group.
Launch launch_over_rows(AttentionKernel kernel, const mx::array& q, const AttentionOptions& options,
                        bool vectors, AttentionTiles tiles) {
  const int D = q.shape(3);
  Launch launch;
  launch.source = &kernel_source(kernel, D, q.dtype(), tiles);
  launch.kernel = std::string("masked_attention_") + kNames[static_cast<int>(kernel)];
  launch.function_constants = {{0, options.has_segments}, {1, options.has_bias}, {2, vectors}};
  launch.grid = {ceil_div(q.shape(2), tiles.rows), q.shape(1), q.shape(0)};
  launch.group = {tiles.rows / (kFragment * tiles.row_fragments) * kLanesOfSimdgroup, 1, 1};
  launch.threadgroup_bytes = attention_threadgroup_bytes(kernel, D, q.dtype(), tiles);
  return launch;
}

// Products of a threadgroup that meets all of its head.
int64_t products_of_group(AttentionKernel kernel, const mx::array& q, AttentionTiles tiles) {
  constexpr int64_t kOfFragments[] = {2, 3, 4};  // for each pair of eight rows and eight columns
  return kOfFragments[static_cast<int>(kernel)] * (tiles.rows / kFragment) *
         ceil_div(q.shape(2), kFragment) * (q.shape(3) / kFragment);
}

// Appends the launch in parts that are within the budget of a launch. Their outputs are disjoint.
template <class Params>
void add_in_parts(Plan& plan, Launch launch, int slot, Params params, int64_t of_group) {
  for (const metal::GridPart& part :
       metal::parts_of(launch.grid, metal::launch_products() / of_group)) {
    launch.grid = part.size;
    params.first = {static_cast<int32_t>(part.first[0]), static_cast<int32_t>(part.first[1]),
                    static_cast<int32_t>(part.first[2])};
    launch.constants = {metal::constants(slot, params)};
    plan.launches.push_back(launch);
  }
}

Launch bias_launch(const mx::array& q, int parts_index, int64_t parts) {
  const int B = q.shape(0), H = q.shape(1), D = q.shape(3);
  Launch launch;
  launch.source = &bias_source(D);
  launch.kernel = "masked_attention_bwd_bias";
  launch.buffers = {
      {0, Role::temporary, parts_index}, {1, Role::output, 3, true}, {2, Role::output, 4, true}};
  launch.constants = {metal::constants(3, AttentionBiasParams{B, H, static_cast<int32_t>(parts)})};
  launch.grid = {ceil_div(D, kBiasColumns), H, 2};
  launch.group = {kBiasThreads * kBiasColumns, 1, 1};
  launch.threadgroup_bytes = kBiasThreads * kBiasColumns * 4;
  return launch;
}

}  // namespace

mx::Shape attention_map_shape(int B, int L) {
  return {B, static_cast<int>(ceil_div(L, kBlock)), map_words(L), 2};
}

Plan attention_map_plan(const mx::array& segment_ids) {
  const int B = segment_ids.shape(0), L = segment_ids.shape(1);
  Launch launch;
  launch.source = &map_source();
  launch.kernel = "masked_attention_map";
  launch.buffers = {{0, Role::input, 0}, {1, Role::output, 0, true}};
  launch.constants = {metal::constants(2, AttentionMapParams{B, L, map_words(L)})};
  launch.grid = {map_words(L), ceil_div(ceil_div(L, kBlock), kMapRows), B};
  launch.group = {kMapRows * kLanesOfSimdgroup, 1, 1};
  launch.threadgroup_bytes = kMapRows * kBlock * 8;
  return {{}, {launch}};
}

Plan attention_forward_plan(const Arrays& inputs, const Arrays& outputs,
                            const AttentionOptions& options, int generation) {
  const mx::array &q = inputs[0], &k = inputs[1], &v = inputs[2], &o = outputs[0];
  const AttentionTiles tiles =
      attention_tiles(AttentionKernel::fwd, q.shape(3), q.dtype(), generation);
  // Kernels read no segments and no biases where there are none; something must be bound.
  const int ids = options.has_segments ? 3 : 0;
  const int map = options.has_segments ? 4 : 0;
  const int bias_k = options.has_bias ? (options.has_segments ? 5 : 3) : 0;
  const int bias_v = options.has_bias ? bias_k + 1 : 0;

  Launch launch = launch_over_rows(AttentionKernel::fwd, q, options,
                                   metal::takes_vectors({&q, &k, &v, &o}), tiles);
  launch.buffers = {
      {0, Role::input, 0},        {1, Role::input, 1},        {2, Role::input, 2},
      {3, Role::output, 0, true}, {4, Role::output, 1, true}, {6, Role::input, ids},
      {7, Role::input, map},      {8, Role::input, bias_k},   {9, Role::input, bias_v}};
  Plan plan;
  add_in_parts(plan, std::move(launch), 5,
               AttentionForwardParams{q.shape(0),
                                      q.shape(1),
                                      q.shape(2),
                                      map_words(q.shape(2)),
                                      options.scale,
                                      {},
                                      strides(q),
                                      strides(k),
                                      strides(v),
                                      strides(o)},
               products_of_group(AttentionKernel::fwd, q, tiles));
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
  const AttentionTiles dkv_tiles = tiles(AttentionKernel::bwd_dkv);
  const int64_t dq_groups = ceil_div(L, dq_tiles.rows);
  const int ids = options.has_segments ? 6 : 0;
  const int map = options.has_segments ? 7 : 0;
  const int bias_k = options.has_bias ? (options.has_segments ? 8 : 6) : 0;
  const int bias_v = options.has_bias ? bias_k + 1 : 0;
  const AttentionBackwardParams params{q.shape(0),
                                       q.shape(1),
                                       q.shape(2),
                                       map_words(q.shape(2)),
                                       options.scale,
                                       static_cast<int32_t>(dq_groups),
                                       {},
                                       0,
                                       strides(q),
                                       strides(k),
                                       strides(v),
                                       strides(o),
                                       strides(dout),
                                       strides(outputs[0]),
                                       strides(outputs[1]),
                                       strides(outputs[2])};
  const bool vectors =
      metal::takes_vectors({&q, &k, &v, &o, &dout, &outputs[0], &outputs[1], &outputs[2]});

  Plan plan;
  constexpr int kDelta = 0, kParts = 1;
  plan.temporaries.push_back(B * H * L * 4);
  const int64_t parts = dq_groups * (dq_tiles.rows / kFragment);
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
  add_in_parts(plan, std::move(dq), 8, params,
               products_of_group(AttentionKernel::bwd_dq, q, dq_tiles));

  Launch dkv = launch_over_rows(AttentionKernel::bwd_dkv, q, options, vectors, dkv_tiles);
  dkv.buffers = {{0, Role::input, 0},        {1, Role::input, 1},          {2, Role::input, 2},
                 {3, Role::input, 4},        {4, Role::temporary, kDelta}, {5, Role::input, 5},
                 {6, Role::output, 1, true}, {7, Role::output, 2, true},   {9, Role::input, ids},
                 {10, Role::input, map}};
  add_in_parts(plan, std::move(dkv), 8, params,
               products_of_group(AttentionKernel::bwd_dkv, q, dkv_tiles));

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
