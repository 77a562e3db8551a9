// The parts of attention that are compiled once per instruction set. Maths: masked_attention.md.
#pragma once

#include "masked_attention/cpu/compute.h"

namespace mlx_esm_kernels::cpu {

// The rows of one head that attend to each other.
struct Group {
  int b, h;
  const int32_t* positions;  // ascending
  int length;
};

// What one call of a kernel works on: queries or keys [begin, end) of a group.
struct Task {
  Group group;
  int begin, end;
};

struct AttentionForwardKernels {
  int queries;  // the most that one task takes
  int64_t (*scratch_size)(int D);

  // The task's queries and all keys of its group. `next` is what this thread is likely to do
  // afterwards, or nullptr: its rows are asked for ahead.
  void (*forward)(const AttentionForward&, const Task&, const Task* next, float* scratch);
};

// Backward's memory that all tasks share.
struct AttentionWorkspace {
  View dq;                // float32, for the sum over chunks: dq itself, or memory of its own
  float* partial_bias_k;  // (B, H, D), or nullptr
  float* partial_bias_v;
};

// The keys of one task of backward, one of the chunks of its group.
struct ChunkTask : Task {
  int chunk, chunks;
  int32_t* turns;  // of the group, one for each panel of queries
};

struct AttentionBackwardKernels {
  int panel;                       // the most queries that share a turn
  int (*key_chunk)(int D);         // the most keys that one task owns
  int64_t (*scratch_size)(int D);  // for each of the two below

  // The first `occupied` positions of a batch row and head are real: the bias's share starts their
  // dq, and its own gradients. Gradients of the others are set to zero.
  void (*prepare)(const AttentionBackward&, const AttentionWorkspace&, const Group& row,
                  int occupied, float* scratch);

  // The task's keys and all queries of its group. dk and dv are complete afterwards. Panel p of dq
  // is added to when turns[p] == chunk, then turns[p] moves on; the last chunk completes it.
  void (*backward)(const AttentionBackward&, const AttentionWorkspace&, const ChunkTask&,
                   const ChunkTask* next, float* scratch);
};

MLX_ESM_KERNELS_DECLARE(AttentionForwardKernels, attention_forward_kernels)
MLX_ESM_KERNELS_DECLARE(AttentionBackwardKernels, attention_backward_kernels)

}  // namespace mlx_esm_kernels::cpu
