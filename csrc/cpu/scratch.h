// Memory that no one clears first, on a cache line's boundary. Free of MLX.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>

#include "cpu/memory.h"

namespace mlx_esm_kernels::cpu {

template <class T>
class Scratch {
 public:
  Scratch() = default;

  explicit Scratch(int64_t n) {
    resize(n);
  }

  // What it held is gone.
  void resize(int64_t n) {
    const size_t bytes = static_cast<size_t>(n) * sizeof(T) + kLine;
    // Not by an aligned allocation: glibc's does not fit into what such a one has freed.
    memory_.reset(new char[bytes]);
    advise_huge_pages(memory_.get(), bytes);
  }

  T* data() const {
    const auto address = reinterpret_cast<uintptr_t>(memory_.get());
    return reinterpret_cast<T*>((address + kLine - 1) / kLine * kLine);
  }

 private:
  static constexpr size_t kLine = 64;

  std::unique_ptr<char[]> memory_;
};

}  // namespace mlx_esm_kernels::cpu
