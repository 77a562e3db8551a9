// Memory that no one clears first, on a cache line's boundary. Free of MLX.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <new>

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
    const size_t bytes = static_cast<size_t>(n) * sizeof(T);
    data_.reset(static_cast<T*>(::operator new(bytes, kLine)));
    advise_huge_pages(data_.get(), bytes);
  }

  T* data() const {
    return data_.get();
  }

 private:
  static constexpr std::align_val_t kLine{64};
  struct Free {
    void operator()(T* p) const {
      ::operator delete(p, kLine);
    }
  };

  std::unique_ptr<T, Free> data_;
};

}  // namespace mlx_esm_kernels::cpu
