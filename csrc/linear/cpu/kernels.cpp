// Compiled once per instruction set, with CPU_TARGET naming its namespace. See linear.md.
#include "linear/cpu/kernels.h"

#include "cpu/rows.h"
#include "linear/cpu/normal.h"

namespace mlx_esm_kernels::cpu::CPU_TARGET {

namespace {

void read(const Matrix& x, Dtype dtype, int64_t begin, int64_t end, float* to) {
  with_type(dtype, [&]<class T>(T) {
    for (int64_t i = begin; i < end; ++i) {
      read_row(row_of<T>(x, i), x.column_stride, x.columns, to + (i - begin) * x.columns);
    }
  });
}

void write(const float* from, Dtype dtype, int64_t n, void* to, int64_t at) {
  with_type(dtype, [&]<class T>(T) { write_row(from, n, static_cast<T*>(to) + at); });
}

template <class T>
void finish_tile(const LinearForward& f, const LinearKernels::Tile& t) {
  const int64_t N = f.weight.rows;
  for (int64_t i = 0; i < t.rows; ++i) {
    const float* product = t.data + i * t.ld;
    const int64_t at = (t.row + i) * N + t.column;
    T* y = static_cast<T*>(f.y) + at;
    T* pre = f.pre == nullptr ? nullptr : static_cast<T*>(f.pre) + at;
    const T* residual = f.residual == nullptr ? nullptr : static_cast<const T*>(f.residual) + at;
    for_each_vector(t.columns, [&](int64_t j, int count) {
      vfloat h = load_some(product + j, count);
      if (f.bias != nullptr) {
        h += load_some(f.bias + t.column + j, count);
      }
      if (pre != nullptr) {
        store_some(pre + j, h, count);
      }
      if (f.gelu) {
        h = h * normal(h).cdf;
      }
      if (residual != nullptr) {
        h += load_some(residual + j, count);
      }
      store_some(y + j, h, count);
    });
  }
}

void finish(const LinearForward& f, const LinearKernels::Tile& t) {
  with_type(f.dtype, [&]<class T>(T) { finish_tile<T>(f, t); });
}

template <class T, class To>
void start_backward_rows(const LinearBackward& a, int64_t begin, int64_t end, To* dh, float* dbias,
                         float* row) {
  const int64_t N = a.weight.rows;
  for (int64_t i = begin; i < end; ++i) {
    read_row(row_of<T>(a.dy, i), a.dy.column_stride, N, row);
    const T* pre = a.gelu ? static_cast<const T*>(a.pre) + i * N : nullptr;
    for_each_vector(N, [&](int64_t j, int count) {
      vfloat g = load_some(row + j, count);
      if (pre != nullptr) {
        const vfloat h = load_some(pre + j, count);
        const Normal n = normal(h);
        g *= n.cdf + h * n.pdf;
      }
      if (dh != nullptr) {
        store_some(dh + i * N + j, g, count);
      }
      if (dbias != nullptr) {
        store_some(dbias + j, load_some(dbias + j, count) + g, count);
      }
    });
  }
}

void start_backward(const LinearBackward& a, int64_t begin, int64_t end, Dtype to, void* dh,
                    float* dbias, float* row) {
  with_type(a.dtype, [&]<class T>(T) {
    if (to == Dtype::float32) {
      start_backward_rows<T>(a, begin, end, static_cast<float*>(dh), dbias, row);
    } else {
      start_backward_rows<T>(a, begin, end, static_cast<T*>(dh), dbias, row);
    }
  });
}

}  // namespace

const LinearKernels linear_kernels = {read, write, finish, start_backward};

}  // namespace mlx_esm_kernels::cpu::CPU_TARGET
