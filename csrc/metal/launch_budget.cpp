#include "metal/launch_budget.h"

#include <atomic>
#include <stdexcept>
#include <string>

namespace mlx_esm_kernels::metal {

namespace {

constexpr int64_t kLaunchProducts = int64_t{1} << 26;

std::atomic<int64_t> products_in_force{kLaunchProducts};

}  // namespace

int64_t launch_products() {
  return products_in_force;
}

void set_launch_products(std::optional<int64_t> products) {
  if (products && *products < 1) {
    throw std::invalid_argument("[metal] a launch must have at least 1 product; got " +
                                std::to_string(*products) + ".");
  }
  products_in_force = products.value_or(kLaunchProducts);
}

}  // namespace mlx_esm_kernels::metal
