// The segment ids as the Metal kernels read them, and the block map made of them: once a batch.
#pragma once

#include "metal/primitive.h"

namespace mlx_esm_kernels {

// Input: segment ids (B, L), int64 and contiguous. Output: the block map (map.metal).
class BlockMap : public MetalPrimitive {
 public:
  using MetalPrimitive::MetalPrimitive;

  void eval_cpu(const Arrays& inputs, Arrays& outputs) override;
  Arrays vjp(const Arrays& primals, const Arrays& cotangents, const std::vector<int>& argnums,
             const Arrays& outputs) override;
  Vectorised vmap(const Arrays& inputs, const std::vector<int>& axes) override;
  std::vector<mx::Shape> output_shapes(const Arrays& inputs) override;
  std::vector<mx::Dtype> output_dtypes(const Arrays& inputs) const override;
  metal::Plan plan(const Arrays& inputs, const Arrays& outputs, int generation) const override;

  bool is_equivalent(const mx::Primitive&) const override {
    return true;  // it is told nothing besides its input
  }
  const char* op() const override {
    return "masked_attention";
  }
  DEFINE_NAME(BlockMap)
};

struct MappedSegments {
  mx::array ids;  // int64, contiguous
  mx::array map;
};

// The same arrays for the same segment ids, which are those of all layers of a model and of all
// calls in a batch: the last ones are remembered, for each thread.
MappedSegments mapped_segments(const mx::array& segment_ids, mx::Stream s);

}  // namespace mlx_esm_kernels
