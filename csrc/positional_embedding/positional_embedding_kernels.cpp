// Compiled once per instruction set, with CPU_TARGET naming its namespace.
// See positional_embedding.md.
#include "positional_embedding/positional_embedding_kernels.h"

#include "cpu/rows.h"

namespace mlx_esm_kernels::cpu::CPU_TARGET {

namespace {

// to += factor * from; rows are short, so a scalar tail would cost as much as the rest.
void add_row(float* to, const float* from, float factor, int64_t n) {
  int64_t i = 0;
  for (; i + kLanes <= n; i += kLanes) {
    store(to + i, load(to + i) + factor * load(from + i));
  }
  if (i < n) {
    const int rest = static_cast<int>(n - i);
    store_partial(to + i, load_partial(to + i, rest) + factor * load_partial(from + i, rest), rest);
  }
}

template <class T>
void read_table(const Table& table, int64_t row, int64_t n, float* to) {
  const T* from = static_cast<const T*>(table.data) + row * table.row_stride;
  read_row(from, table.column_stride, n, to);
}

template <class T>
void forward_rows(const EmbeddingForward& f, const Source* sources, int64_t begin, int64_t end,
                  float* scratch) {
  float* sum = scratch;
  float* token = scratch + f.C;
  for (int64_t i = begin; i < end; ++i) {
    const Source& s = sources[i];
    T* out = static_cast<T*>(f.out) + i * f.C;
    if (s.position < 0) {
      clear_row(out, f.C);
      continue;
    }
    read_table<T>(f.position_table, s.position, f.C, sum);
    // A dropped token's row is not read: 0 * inf would be NaN.
    if (s.scale != 0) {
      read_table<T>(f.token_table, s.token, f.C, token);
      add_row(sum, token, s.scale, f.C);
    }
    write_row(sum, f.C, out);
  }
}

void forward(const EmbeddingForward& f, const Source* sources, int64_t begin, int64_t end,
             float* scratch) {
  with_type(f.dtype, [&]<class T>(T) { forward_rows<T>(f, sources, begin, end, scratch); });
}

template <class T>
void backward_columns(const EmbeddingBackward& a, const Source* sources, int begin, int end,
                      float* scratch) {
  const int width = end - begin;
  float* tokens = scratch;
  float* positions = tokens + a.vocab * width;
  float* row = positions + a.positions * width;
  clear_row(scratch, (a.vocab + a.positions) * width);
  for (int b = 0; b < a.B; ++b) {
    for (int l = 0; l < a.L; ++l) {
      const Source& s = sources[static_cast<int64_t>(b) * a.L + l];
      if (s.position < 0) {
        continue;
      }
      const T* dout = static_cast<const T*>(a.dout) + b * a.b_stride + l * a.l_stride;
      read_row(dout + begin * a.c_stride, a.c_stride, width, row);
      add_row(positions + static_cast<int64_t>(s.position) * width, row, 1.0f, width);
      if (s.scale != 0) {
        add_row(tokens + static_cast<int64_t>(s.token) * width, row, s.scale, width);
      }
    }
  }
  for (int64_t v = 0; v < a.vocab; ++v) {
    write_row(tokens + v * width, width, static_cast<T*>(a.dtoken_table) + v * a.C + begin);
  }
  for (int64_t p = 0; p < a.positions; ++p) {
    write_row(positions + p * width, width, static_cast<T*>(a.dposition_table) + p * a.C + begin);
  }
}

void backward(const EmbeddingBackward& a, const Source* sources, int begin, int end,
              float* scratch) {
  with_type(a.dtype, [&]<class T>(T) { backward_columns<T>(a, sources, begin, end, scratch); });
}

}  // namespace

const EmbeddingKernels embedding_kernels = {forward, backward};

}  // namespace mlx_esm_kernels::cpu::CPU_TARGET
