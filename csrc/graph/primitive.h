// What the primitives of all ops share: a base class that says plainly what is missing, and two
// ways to vectorise a primitive.
#pragma once

#include <functional>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "metal/plan.h"
#include "mlx/mlx.h"
#include "mlx/primitives.h"

namespace mlx_esm_kernels {

namespace mx = mlx::core;

using Arrays = std::vector<mx::array>;

class OpPrimitive : public mx::Primitive {
 public:
  using mx::Primitive::Primitive;

  // Allocates the outputs and runs the launch plan.
  void eval_gpu(const Arrays& inputs, Arrays& outputs) override;

  Arrays jvp(const Arrays& primals, const Arrays& tangents,
             const std::vector<int>& argnums) override;

  Arrays vjp(const Arrays& primals, const Arrays& cotangents, const std::vector<int>& argnums,
             const Arrays& outputs) override;

  // One dtype for each of output_shapes.
  virtual std::vector<mx::Dtype> output_dtypes(const Arrays& inputs) const = 0;

  // How a GPU of this generation (metal/chip.h) does it, once the outputs are allocated. Ops
  // without kernels for a GPU build MLX's own maths there, so that the default, which throws, is
  // not reached.
  virtual metal::Plan plan(const Arrays& inputs, const Arrays& outputs, int generation) const;

  // Row-contiguous unless overridden.
  virtual void allocate(Arrays& outputs) const;

  // The op's public name, for messages.
  virtual const char* op() const = 0;
};

// A primitive that is told something besides its inputs; two that were told the same are equal.
template <class Options>
class OpPrimitiveWith : public OpPrimitive {
 public:
  OpPrimitiveWith(mx::Stream stream, Options options) : OpPrimitive(stream), options_(options) {}

  // MLX asks this of primitives of one class only.
  bool is_equivalent(const mx::Primitive& other) const override {
    return options_ == static_cast<const OpPrimitiveWith&>(other).options_;
  }

 protected:
  Options options_;
};

// What a primitive can read without strides: x in the dtype, row-contiguous; x itself if it is
// that.
mx::array contiguous_as(const mx::array& x, mx::Dtype dtype, mx::Stream s);

// (..., C) as (rows, C).
mx::array as_rows(const mx::array& x, mx::Stream s);

void allocate_contiguous(mx::array& out);

// The outputs of a primitive that is applied to the inputs.
Arrays outputs_of(const std::shared_ptr<OpPrimitive>& primitive, const Arrays& inputs);

using Vectorised = std::pair<Arrays, std::vector<int>>;
using Builder = std::function<Arrays(const Arrays&)>;

// Moves the mapped axis of the first `folded` inputs into their axis 0 (repeating those that are
// not mapped), applies `build` once, and splits axis 0 of every output. The other inputs must not
// be mapped. In both ways `build` is given contiguous inputs.
Vectorised vmap_by_folding(const Arrays& inputs, const std::vector<int>& axes, size_t folded,
                           const Builder& build, mx::Stream s);

// Applies `build` once per element of the mapped axis and stacks the outputs.
Vectorised vmap_by_loop(const Arrays& inputs, const std::vector<int>& axes, const Builder& build,
                        mx::Stream s);

bool any_mapped(const std::vector<int>& axes, size_t begin);

}  // namespace mlx_esm_kernels
