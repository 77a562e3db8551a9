// Encodes one plan and prints what Metal would have been asked.
#include <iostream>
#include <stdexcept>

#include "metal/encode.h"
#include "mlx/backend/metal/device.h"

namespace ek = mlx_esm_kernels::metal;
namespace mx = mlx::core;

namespace {

mx::array named(int name) {
  mx::array x = mx::full({2}, name, mx::int32);
  mx::eval(x);
  return x;
}

const ek::Source kTextA{"lib_a", "text a"}, kTextB{"lib_b", "text b"};

ek::Plan two_launches() {
  using Role = ek::Buffer::Role;
  ek::Launch first;
  first.source = &kTextA;
  first.kernel = "f";
  first.function_constants = {{0, true}, {2, int32_t{-3}}, {1, 0.5f}};
  first.buffers = {{0, Role::input, 1}, {2, Role::output, 0, true}, {5, Role::temporary, 0, true}};
  first.constants = {{3, {std::byte{'a'}, std::byte{'b'}, std::byte{'c'}}}};
  first.grid = {5, 6, 7};
  first.group = {64, 1, 1};
  ek::Launch second;
  second.source = &kTextB;
  second.kernel = "g";
  second.buffers = {{1, Role::temporary, 0},
                    {0, Role::output, 1, true},
                    {4, Role::output, 0},
                    {7, Role::input, 0}};
  second.grid = {1, 2, 1};
  second.group = {1024, 1, 1};
  return {{8}, {first, second}};
}

}  // namespace

int main() {
  const std::vector<mx::array> inputs = {named(10), named(11)}, outputs = {named(20), named(21)};
  const ek::Bindings bindings{inputs, outputs, {named(30)}};
  const mx::Stream stream = mx::default_stream(mx::Device::cpu);
  ek::Plan plan = two_launches();
  ek::encode(plan, bindings, stream);
  std::cout << mx::metal::calls.str();
  plan.launches[1].group = {1056, 1, 1};
  try {
    ek::encode(plan, bindings, stream);
  } catch (const std::runtime_error& error) {
    std::cout << error.what() << "\n";
  }
}
