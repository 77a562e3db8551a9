#include "positional_embedding/metal/launch.h"

#include <algorithm>

#include "ceil_div.h"
#include "metal/operand.h"
#include "metal/sources.h"
#include "positional_embedding/metal/params.h"

namespace mlx_esm_kernels {

namespace {

using metal::Launch;
using metal::Plan;
using Role = metal::Buffer::Role;

constexpr int64_t kMinChunk = 1024;
constexpr int kLookups = 0, kParts = 1;  // temporaries

const metal::Source& places_source() {
  return metal::source_of("positional_embedding/metal/places.metal", {});
}

const metal::Source& table_source(const char* direction, mx::Dtype dtype) {
  return metal::source_of(std::string("positional_embedding/metal/") + direction + ".metal",
                          {{"ELEMENT", metal::element_name(dtype)}});
}

Launch launch_of(const metal::Source& source, const char* kernel) {
  Launch launch;
  launch.source = &source;
  launch.kernel = kernel;
  return launch;
}

Launch places_launch(const mx::array& tokens, const EmbeddingOptions& options) {
  const int B = tokens.shape(0), L = tokens.shape(1);
  Launch launch = launch_of(places_source(), "positional_embedding_places");
  // Without token dropout no token is a mask: -1 is none.
  launch.function_constants = {{0, options.has_segments}, {1, options.mask_idx.has_value()}};
  launch.buffers = {{0, Role::input, 0},
                    {1, Role::input, options.has_segments ? 1 : 0},
                    {2, Role::temporary, kLookups, true}};
  launch.constants = {metal::constants(
      3, EmbeddingPlaceParams{B, L, options.vocab, options.positions, options.padding_idx,
                              options.mask_idx.value_or(-1)})};
  launch.grid = {ceil_div(L, kPlaceTokens), 1, B};
  launch.group = {kPlaceTokens, 1, 1};
  launch.threadgroup_bytes =
      kPlaceTokens * (8 + 4) + kPlaceBlocks * static_cast<int>(sizeof(PlaceBlock));
  return launch;
}

int64_t lookups_bytes(const mx::array& tokens) {
  return static_cast<int64_t>(tokens.size()) * static_cast<int64_t>(sizeof(EmbeddingLookup));
}

// Rows of a part of the token table's gradient: so many that the parts have no more elements than
// dout.
int64_t chunk_rows(int vocab) {
  return ceil_div(std::max<int64_t>(kMinChunk, vocab), kTokenRows) * kTokenRows;
}

}  // namespace

Plan embedding_forward_plan(const Arrays& inputs, const Arrays& outputs,
                            const EmbeddingOptions& options) {
  const int first = options.has_segments ? 2 : 1;
  const mx::array &tokens = inputs[0], &token_table = inputs[first],
                  &position_table = inputs[first + 1];
  const auto rows = static_cast<int64_t>(tokens.size());
  Launch launch = launch_of(table_source("fwd", token_table.dtype()), "positional_embedding_fwd");
  launch.function_constants = {
      {0, metal::takes_vectors({&token_table, &position_table, &outputs[0]})}};
  launch.buffers = {{0, Role::temporary, kLookups},
                    {1, Role::input, first},
                    {2, Role::input, first + 1},
                    {3, Role::output, 0, true}};
  const mx::Strides &token = token_table.strides(), &position = position_table.strides();
  launch.constants = {
      metal::constants(4, EmbeddingForwardParams{rows, token_table.shape(1), 0, token[0], token[1],
                                                 position[0], position[1]})};
  launch.grid = {ceil_div(rows, kForwardRows), 1, 1};
  launch.group = {kForwardRows * kLanesOfSimdgroup, 1, 1};

  Plan plan;
  plan.temporaries = {lookups_bytes(tokens)};
  plan.launches = {places_launch(tokens, options), std::move(launch)};
  return plan;
}

Plan embedding_backward_plan(const Arrays& inputs, const Arrays& outputs,
                             const EmbeddingOptions& options) {
  const mx::array &tokens = inputs[0], &dout = inputs.back();
  const int dout_index = static_cast<int>(inputs.size()) - 1;
  const int64_t rows = static_cast<int64_t>(tokens.size());
  const int C = dout.shape(2), V = options.vocab;
  const int64_t chunk = chunk_rows(V), chunks = ceil_div(rows, chunk);
  const mx::Strides& strides = dout.strides();
  const EmbeddingBackwardParams params{tokens.shape(0),
                                       tokens.shape(1),
                                       C,
                                       V,
                                       options.positions,
                                       static_cast<int32_t>(chunk),
                                       static_cast<int32_t>(chunks),
                                       0,
                                       strides[0],
                                       strides[1],
                                       strides[2]};
  const metal::Source& source = table_source("bwd", dout.dtype());
  const bool vectors = metal::takes_vectors({&dout, &outputs[0], &outputs[1]});

  Launch parts = launch_of(source, "positional_embedding_bwd_tokens");
  parts.buffers = {{0, Role::temporary, kLookups},
                   {1, Role::input, dout_index},
                   {2, Role::temporary, kParts, true}};
  parts.constants = {metal::constants(3, params)};
  parts.grid = {ceil_div(C, kTokenColumns), ceil_div(V, kTokens), chunks};
  parts.group = {kTokenRows, 1, 1};
  parts.threadgroup_bytes = kTokenRows * (4 + 4 + 8);

  Launch sum = launch_of(source, "positional_embedding_bwd_sum");
  sum.buffers = {{0, Role::temporary, kParts}, {1, Role::output, 0, true}};
  sum.constants = {metal::constants(2, params)};
  sum.grid = {ceil_div(static_cast<int64_t>(V) * C, kSumElements), 1, 1};
  sum.group = {kSumElements, 1, 1};

  Launch positions = launch_of(source, "positional_embedding_bwd_positions");
  positions.buffers = {
      {0, Role::temporary, kLookups}, {1, Role::input, dout_index}, {2, Role::output, 1, true}};
  positions.constants = {metal::constants(3, params)};
  positions.grid = {ceil_div(options.positions, kPositions), ceil_div(C, kPositionColumns), 1};
  positions.group = {kPositions * kLanesOfSimdgroup, 1, 1};
  positions.threadgroup_bytes = kPositions * kLanesOfSimdgroup * (4 + 8);

  Plan plan;
  plan.temporaries = {lookups_bytes(tokens), chunks * V * C * 4};
  plan.launches = {places_launch(tokens, options), std::move(parts), std::move(sum),
                   std::move(positions)};
  for (Launch& launch : plan.launches) {
    if (launch.source == &source) {
      launch.function_constants = {{0, vectors}};
    }
  }
  return plan;
}

std::vector<std::string> embedding_sources(mx::Dtype dtype) {
  return {places_source().text, table_source("fwd", dtype).text, table_source("bwd", dtype).text};
}

}  // namespace mlx_esm_kernels
