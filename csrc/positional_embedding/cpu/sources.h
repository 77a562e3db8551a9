// Which rows of the tables each output row of the positional embedding is made of. Free of MLX.
#pragma once

#include <vector>

#include "positional_embedding/cpu/kernels.h"

namespace mlx_esm_kernels::cpu {

// A source for each of the B L tokens. Throws std::invalid_argument where a token or a position
// lies outside its table.
std::vector<Source> find_sources(const EmbeddingInputs& args);

}  // namespace mlx_esm_kernels::cpu
