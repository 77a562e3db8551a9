// Launch plans of masked attention: which kernels, tiles, grids and buffers. Buffers are numbered
// as the primitives' inputs and outputs are (masked_attention.h).
#pragma once

#include "masked_attention/masked_attention.h"
#include "metal/plan.h"

namespace mlx_esm_kernels {

// Input: segment ids. Output: the block map.
metal::Plan attention_map_plan(const mx::array& segment_ids);

metal::Plan attention_forward_plan(const Arrays& inputs, const Arrays& outputs,
                                   const AttentionOptions& options, int generation);

metal::Plan attention_backward_plan(const Arrays& inputs, const Arrays& outputs,
                                    const AttentionOptions& options, int generation);

// (B, blocks of rows, words, 2): the shape of the block map.
mx::Shape attention_map_shape(int B, int L);

// The texts of all kernels for a head dim and dtype, with the tiles in force.
std::vector<std::string> attention_sources(int D, mx::Dtype dtype, int generation);

}  // namespace mlx_esm_kernels
