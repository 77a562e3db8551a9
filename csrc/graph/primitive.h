// What the primitives of all ops share: a base class that says plainly what is missing, and ways to
// vectorise a primitive.
#pragma once

#include <functional>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "mlx/mlx.h"
#include "mlx/primitives.h"

namespace mlx_esm_kernels {

namespace mx = mlx::core;

using Arrays = std::vector<mx::array>;

// Has no GPU kernel: on a GPU such an op builds MLX's own maths.
class OpPrimitive : public mx::Primitive {
 public:
  using mx::Primitive::Primitive;

  void eval_gpu(const Arrays& inputs, Arrays& outputs) override;

  Arrays jvp(const Arrays& primals, const Arrays& tangents,
             const std::vector<int>& argnums) override;

  Arrays vjp(const Arrays& primals, const Arrays& cotangents, const std::vector<int>& argnums,
             const Arrays& outputs) override;

  // One dtype for each of output_shapes.
  virtual std::vector<mx::Dtype> output_dtypes(const Arrays& inputs) const = 0;

  // The op's public name, for messages.
  virtual const char* op() const = 0;
};

// The outputs of a primitive that is applied to the inputs.
Arrays outputs_of(const std::shared_ptr<OpPrimitive>& primitive, const Arrays& inputs);

using Builder = std::function<Arrays(const Arrays&)>;

// A primitive that is told something besides its inputs; two that were told the same are equal.
template <class Options, class Base = OpPrimitive>
class OpPrimitiveWith : public Base {
 public:
  OpPrimitiveWith(mx::Stream stream, Options options) : Base(stream), options_(options) {}

  // MLX asks this of primitives of one class only.
  bool is_equivalent(const mx::Primitive& other) const override {
    return options_ == static_cast<const OpPrimitiveWith&>(other).options_;
  }

 protected:
  // Applies primitives of the class that are told what this one was.
  template <class Self>
  Builder anew() {
    return [stream = this->stream(), options = options_](const Arrays& inputs) {
      return outputs_of(std::make_shared<Self>(stream, options), inputs);
    };
  }

  Options options_;
};

// What a primitive can read without strides: x in the dtype, row-contiguous; x itself if it is
// that.
mx::array contiguous_as(const mx::array& x, mx::Dtype dtype, mx::Stream s);

// (..., C) as (rows, C).
mx::array as_rows(const mx::array& x, mx::Stream s);

using Vectorised = std::pair<Arrays, std::vector<int>>;

// Moves the mapped axis of the first `folded` inputs into their axis 0 (repeating those that are
// not mapped), applies `build` once, and splits axis 0 of every output. The other inputs must not
// be mapped. In all ways `build` is given contiguous inputs.
Vectorised vmap_by_folding(const Arrays& inputs, const std::vector<int>& axes, size_t folded,
                           const Builder& build, mx::Stream s);

// Applies `build` once per element of the mapped axis and stacks the outputs.
Vectorised vmap_by_loop(const Arrays& inputs, const std::vector<int>& axes, const Builder& build,
                        mx::Stream s);

// Folds where only the first `folded` inputs are mapped, else applies `build` once per element.
Vectorised vmap_by_either(const Arrays& inputs, const std::vector<int>& axes, size_t folded,
                          const Builder& build, mx::Stream s);

}  // namespace mlx_esm_kernels
