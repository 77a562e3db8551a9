#include "graph/primitive.h"

#include <algorithm>
#include <stdexcept>

namespace mlx_esm_kernels {

namespace {

int mapped_size(const Arrays& inputs, const std::vector<int>& axes) {
  for (size_t i = 0; i < inputs.size(); ++i) {
    if (axes[i] >= 0) {
      return inputs[i].shape(axes[i]);
    }
  }
  throw std::invalid_argument("[vmap] at least one input must be mapped.");
}

mx::Shape with_front(int size, const mx::Shape& shape) {
  mx::Shape out = {size};
  out.insert(out.end(), shape.begin(), shape.end());
  return out;
}

// (n, a, ...) to (n a, ...)
mx::array fold(const mx::array& x, int axis, int size, mx::Stream s) {
  const mx::array moved =
      axis < 0 ? mx::broadcast_to(x, with_front(size, x.shape()), s) : mx::moveaxis(x, axis, 0, s);
  return mx::contiguous(mx::flatten(moved, 0, 1, s), false, s);
}

}  // namespace

void OpPrimitive::eval_gpu(const Arrays&, Arrays&) {
  throw std::runtime_error(std::string("[") + op() + "] " + name() +
                           " has no GPU kernel; run it on the CPU.");
}

Arrays OpPrimitive::jvp(const Arrays&, const Arrays&, const std::vector<int>&) {
  throw std::invalid_argument(std::string("[") + op() +
                              "] has no forward-mode derivative (jvp); use mx.vjp or mx.grad.");
}

Arrays OpPrimitive::vjp(const Arrays&, const Arrays&, const std::vector<int>&, const Arrays&) {
  throw std::invalid_argument(std::string("[") + op() +
                              "] has no second derivative; differentiate it once.");
}

mx::array contiguous_as(const mx::array& x, mx::Dtype dtype, mx::Stream s) {
  // An array that is there, as parameters are, needs no node of the graph that says so.
  if (x.dtype() == dtype && x.is_available() && x.flags().row_contiguous) {
    return x;
  }
  return mx::contiguous(mx::astype(x, dtype, s), false, s);
}

mx::array as_rows(const mx::array& x, mx::Stream s) {
  const int C = x.shape(-1);
  return mx::reshape(x, {static_cast<int>(x.size() / C), C}, s);
}

Arrays outputs_of(const std::shared_ptr<OpPrimitive>& primitive, const Arrays& inputs) {
  return mx::array::make_arrays(primitive->output_shapes(inputs), primitive->output_dtypes(inputs),
                                primitive, inputs);
}

Vectorised vmap_by_folding(const Arrays& inputs, const std::vector<int>& axes, size_t folded,
                           const Builder& build, mx::Stream s) {
  const int size = mapped_size(inputs, axes);
  Arrays flat;
  for (size_t i = 0; i < inputs.size(); ++i) {
    flat.push_back(i < folded ? fold(inputs[i], axes[i], size, s) : inputs[i]);
  }
  Arrays outputs = build(flat);
  for (mx::array& out : outputs) {
    out = mx::unflatten(out, 0, {size, size == 0 ? 0 : out.shape(0) / size}, s);
  }
  return {outputs, std::vector<int>(outputs.size(), 0)};
}

Vectorised vmap_by_loop(const Arrays& inputs, const std::vector<int>& axes, const Builder& build,
                        mx::Stream s) {
  const int size = mapped_size(inputs, axes);
  std::vector<Arrays> columns;
  for (int n = 0; n < size; ++n) {
    Arrays slice;
    for (size_t i = 0; i < inputs.size(); ++i) {
      slice.push_back(axes[i] < 0 ? inputs[i]
                                  : mx::contiguous(mx::take(inputs[i], n, axes[i], s), false, s));
    }
    const Arrays outputs = build(slice);
    columns.resize(outputs.size());
    for (size_t i = 0; i < outputs.size(); ++i) {
      columns[i].push_back(outputs[i]);
    }
  }
  if (columns.empty()) {
    throw std::invalid_argument(
        "[vmap] a mapped axis of size 0 has no result here; map 1 or more.");
  }
  Arrays stacked;
  for (const Arrays& column : columns) {
    stacked.push_back(mx::stack(column, 0, s));
  }
  return {stacked, std::vector<int>(stacked.size(), 0)};
}

Vectorised vmap_by_either(const Arrays& inputs, const std::vector<int>& axes, size_t folded,
                          const Builder& build, mx::Stream s) {
  const bool others = std::any_of(axes.begin() + static_cast<std::ptrdiff_t>(folded), axes.end(),
                                  [](int axis) { return axis >= 0; });
  return others ? vmap_by_loop(inputs, axes, build, s)
                : vmap_by_folding(inputs, axes, folded, build, s);
}

}  // namespace mlx_esm_kernels
