#include "graph/checks.h"

#include <sstream>
#include <stdexcept>

namespace mlx_esm_kernels {

std::string text(const mx::Shape& shape) {
  std::string out = "(";
  for (size_t i = 0; i < shape.size(); ++i) {
    out += (i == 0 ? "" : ", ") + std::to_string(shape[i]);
  }
  return out + (shape.size() == 1 ? ",)" : ")");
}

std::string text(mx::Dtype dtype) {
  std::ostringstream out;
  out << dtype;
  return out.str();
}

void fail(const char* op, const std::string& sentence) {
  throw std::invalid_argument(std::string("[") + op + "] " + sentence);
}

void expect_floating(const char* op, const char* name, const mx::array& x) {
  if (x.dtype() != mx::float32 && x.dtype() != mx::float16 && x.dtype() != mx::bfloat16) {
    fail(op,
         std::string(name) + " must be float32, float16 or bfloat16; got " + text(x.dtype()) + ".");
  }
}

void expect_integer(const char* op, const char* name, const mx::array& x) {
  if (!mx::issubdtype(x.dtype(), mx::integer) && x.dtype() != mx::bool_) {
    fail(op,
         std::string(name) + " must be of an integer dtype or bool; got " + text(x.dtype()) + ".");
  }
}

void expect_shape(const char* op, const char* name, const mx::array& x, const mx::Shape& shape,
                  const char* meaning) {
  if (x.shape() != shape) {
    fail(op, std::string(name) + " must have shape " + meaning + " = " + text(shape) + "; got " +
                 text(x.shape()) + ".");
  }
}

}  // namespace mlx_esm_kernels
