#include "metal/operand.h"

#include <algorithm>

namespace mlx_esm_kernels::metal {

namespace mx = mlx::core;

namespace {

constexpr int kVector = 4;

bool takes_vectors(const mx::array& x) {
  const int last = static_cast<int>(x.ndim()) - 1;
  if (x.shape(last) % kVector != 0 || x.strides()[last] != 1 ||
      x.offset() % static_cast<int64_t>(kVector * x.itemsize()) != 0) {
    return false;
  }
  for (int i = 0; i < last; ++i) {
    if (x.shape(i) > 1 && x.strides()[i] % kVector != 0) {
      return false;
    }
  }
  return true;
}

}  // namespace

std::string element_name(mx::Dtype dtype) {
  return dtype == mx::float32 ? "float" : dtype == mx::float16 ? "half" : "bfloat";
}

bool takes_vectors(std::initializer_list<const mx::array*> arrays) {
  return std::all_of(arrays.begin(), arrays.end(),
                     [](const mx::array* x) { return takes_vectors(*x); });
}

}  // namespace mlx_esm_kernels::metal
