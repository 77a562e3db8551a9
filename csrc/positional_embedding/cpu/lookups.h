// Which rows of the tables each output row of the positional embedding is made of. Free of MLX.
#pragma once

#include <vector>

#include "positional_embedding/cpu/kernels.h"

namespace mlx_esm_kernels::cpu {

// A lookup for each of the B L tokens. Throws std::invalid_argument where a token or a position
// lies outside its table.
std::vector<EmbeddingLookup> find_lookups(const EmbeddingInputs& args);

}  // namespace mlx_esm_kernels::cpu
