// Compiled once per instruction set, with CPU_TARGET naming its namespace. See layer_norm.md.
#include "layer_norm/cpu/kernels.h"

#include "cpu/rows.h"

namespace mlx_esm_kernels::cpu::CPU_TARGET {

namespace {

struct Moments {
  float mean, scale;  // scale: one over the standard deviation
};

// In two passes: the mean of the squares less the square of the mean would cancel.
inline Moments moments(const float* row, int64_t n, float eps) {
  vfloat sum = {};
  for_each_vector(n, [&](int64_t i, int count) { sum += load_some(row + i, count); });
  const float mean = sum_of_lanes(sum) / static_cast<float>(n);
  vfloat squares = {};
  for_each_vector(n, [&](int64_t i, int count) {
    vfloat x = load_some(row + i, count) - mean;
    if (count < kLanes) {
      float lanes[kLanes] = {};
      store_partial(lanes, x, count);
      x = load(lanes);
    }
    squares += x * x;
  });
  const float variance = sum_of_lanes(squares) / static_cast<float>(n);
  return {mean, 1.0f / __builtin_sqrtf(variance + eps)};
}

// Adds a row of any dtype to a float32 one.
template <class T>
inline void add_to(float* row, const T* more, int64_t stride, int64_t n) {
  if (stride != 1) {
    for (int64_t i = 0; i < n; ++i) {
      row[i] += load_partial(more + i * stride, 1)[0];
    }
    return;
  }
  for_each_vector(n, [&](int64_t i, int count) {
    store_some(row + i, load_some(row + i, count) + load_some(more + i, count), count);
  });
}

template <class T>
void forward_rows(const LayerNormForward& f, int64_t begin, int64_t end, float* row) {
  for (int64_t m = begin; m < end; ++m) {
    read_row(row_of<T>(f.x, m), f.x.column_stride, f.C, row);
    if (f.sum != nullptr) {
      add_to(row, row_of<T>(f.delta, m), f.delta.column_stride, f.C);
      T* sum = static_cast<T*>(f.sum) + m * f.C;
      write_row(row, f.C, sum);
      read_row(sum, 1, f.C, row);  // as rounded
    }
    const Moments of = moments(row, f.C, f.eps);
    T* y = static_cast<T*>(f.y) + m * f.C;
    for_each_vector(f.C, [&](int64_t i, int count) {
      const vfloat n = (load_some(row + i, count) - of.mean) * of.scale;
      store_some(y + i, n * load_some(f.weight + i, count) + load_some(f.bias + i, count), count);
    });
  }
}

// The row becomes n, and dy becomes g; the rows of the parameters take in theirs.
inline void to_normal(const LayerNormBackward& b, float* row, float* dy, const Moments& of,
                      float* dweight, float* dbias, float* mean_g, float* mean_gn) {
  vfloat sum_g = {}, sum_gn = {};
  for_each_vector(b.C, [&](int64_t i, int count) {
    const vfloat n = (load_some(row + i, count) - of.mean) * of.scale;
    const vfloat d = load_some(dy + i, count);
    const vfloat g = d * load_some(b.weight + i, count);
    store_some(row + i, n, count);
    store_some(dy + i, g, count);
    store_some(dweight + i, load_some(dweight + i, count) + d * n, count);
    store_some(dbias + i, load_some(dbias + i, count) + d, count);
    sum_g += g;  // lanes beyond the row hold 0, since dy does
    sum_gn += g * n;
  });
  *mean_g = sum_of_lanes(sum_g) / static_cast<float>(b.C);
  *mean_gn = sum_of_lanes(sum_gn) / static_cast<float>(b.C);
}

template <class T>
void backward_rows(const LayerNormBackward& b, int64_t begin, int64_t end, float* dweight,
                   float* dbias, float* rows) {
  float *row = rows, *dy = rows + b.C;
  for (int64_t m = begin; m < end; ++m) {
    read_row(row_of<T>(b.x, m), b.x.column_stride, b.C, row);
    read_row(row_of<T>(b.dy, m), b.dy.column_stride, b.C, dy);
    const Moments of = moments(row, b.C, b.eps);
    float mean_g, mean_gn;
    to_normal(b, row, dy, of, dweight, dbias, &mean_g, &mean_gn);
    for_each_vector(b.C, [&](int64_t i, int count) {
      const vfloat n = load_some(row + i, count), g = load_some(dy + i, count);
      store_some(dy + i, of.scale * (g - mean_g - n * mean_gn), count);
    });
    if (b.ds.data != nullptr) {
      add_to(dy, row_of<T>(b.ds, m), b.ds.column_stride, b.C);
    }
    write_row(dy, b.C, static_cast<T*>(b.dx) + m * b.C);
  }
}

void forward(const LayerNormForward& f, int64_t begin, int64_t end, float* row) {
  with_type(f.dtype, [&]<class T>(T) { forward_rows<T>(f, begin, end, row); });
}

void backward(const LayerNormBackward& b, int64_t begin, int64_t end, float* dweight, float* dbias,
              float* rows) {
  with_type(b.dtype, [&]<class T>(T) { backward_rows<T>(b, begin, end, dweight, dbias, rows); });
}

}  // namespace

const LayerNormKernels layer_norm_kernels = {forward, backward};

}  // namespace mlx_esm_kernels::cpu::CPU_TARGET
