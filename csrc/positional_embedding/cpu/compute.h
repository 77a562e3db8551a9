// The positional embedding on plain memory: what eval_cpu calls. Free of MLX and of C++ library
// headers (see cpu/vector.h).
#pragma once

#include <stdint.h>

#include "cpu/strided_rows.h"
#include "cpu/target.h"

namespace mlx_esm_kernels::cpu {

struct EmbeddingInputs {
  int B, L, C;
  int64_t vocab, positions;  // rows of the two tables
  int64_t padding_idx;
  int64_t mask_idx;  // meaningful where token_dropout is true
  bool token_dropout;
  Dtype dtype;
  const int64_t* tokens;       // (B, L)
  const int64_t* segment_ids;  // (B, L) or nullptr
};

struct EmbeddingForward : EmbeddingInputs {
  StridedRows token_table, position_table;
  void* out;  // (B, L, C), contiguous
};

struct EmbeddingBackward : EmbeddingInputs {
  const void* dout;  // (B, L, C), strides in elements
  int64_t b_stride, l_stride, c_stride;
  void* dtoken_table;     // (vocab, C), contiguous
  void* dposition_table;  // (positions, C), contiguous
};

// Throws std::invalid_argument where a token or a position lies outside its table.
void check_embedding(const EmbeddingInputs& args);

// Both throw as check_embedding does, before they write.
void embedding_forward(const EmbeddingForward& args);

// Deterministic: what a task adds up, and in which order, does not depend on the threads.
void embedding_backward(const EmbeddingBackward& args);

}  // namespace mlx_esm_kernels::cpu
