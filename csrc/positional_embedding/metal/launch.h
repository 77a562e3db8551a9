// Launch plans of the positional embedding. Buffers are numbered as the primitives' inputs and
// outputs are (positional_embedding.h).
#pragma once

#include "metal/plan.h"
#include "positional_embedding/positional_embedding.h"

namespace mlx_esm_kernels {

metal::Plan embedding_forward_plan(const Arrays& inputs, const Arrays& outputs,
                                   const EmbeddingOptions& options);

metal::Plan embedding_backward_plan(const Arrays& inputs, const Arrays& outputs,
                                    const EmbeddingOptions& options);

// The texts of all kernels for a dtype.
std::vector<std::string> embedding_sources(mx::Dtype dtype);

}  // namespace mlx_esm_kernels
