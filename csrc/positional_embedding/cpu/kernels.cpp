// Compiled once per instruction set, with CPU_TARGET naming its namespace.
// See positional_embedding.md.
#include "positional_embedding/cpu/kernels.h"

#include "cpu/rows.h"

namespace mlx_esm_kernels::cpu::CPU_TARGET {

namespace {

// n elements, `stride` apart, side by side: where they lie, or copied to `scratch`.
template <class T>
const T* side_by_side(const T* from, int64_t stride, int64_t n, float* scratch) {
  if (stride == 1) {
    return from;
  }
  copy_row(from, stride, n, scratch);
  return reinterpret_cast<const T*>(scratch);
}

template <class T>
const T* table_row(const StridedRows& table, int64_t row, int64_t n, float* scratch) {
  return side_by_side(row_of<T>(table, row), table.column_stride, n, scratch);
}

template <class T>
void forward_rows(const EmbeddingForward& f, const EmbeddingLookup* lookups, int64_t begin,
                  int64_t end, float* scratch) {
  for (int64_t i = begin; i < end; ++i) {
    const EmbeddingLookup& lookup = lookups[i];
    T* out = static_cast<T*>(f.out) + i * f.C;
    if (lookup.position < 0) {
      clear_row(out, f.C);
      continue;
    }
    const T* position = table_row<T>(f.position_table, lookup.position, f.C, scratch);
    // A dropped token's row is not read: 0 * inf would be NaN.
    if (lookup.factor == 0) {
      copy_row(position, 1, f.C, out);
      continue;
    }
    const T* token = table_row<T>(f.token_table, lookup.token, f.C, scratch + f.C);
    for_each_vector(f.C, [&](int64_t c, int count) {
      const vfloat sum =
          load_some(position + c, count) + lookup.factor * load_some(token + c, count);
      store_some(out + c, sum, count);
    });
  }
}

void forward(const EmbeddingForward& f, const EmbeddingLookup* lookups, int64_t begin, int64_t end,
             float* scratch) {
  with_type(f.dtype, [&]<class T>(T) { forward_rows<T>(f, lookups, begin, end, scratch); });
}

template <class T>
const T* dout_row(const EmbeddingBackward& a, int64_t row) {
  return static_cast<const T*>(a.dout) + row / a.L * a.b_stride + row % a.L * a.l_stride;
}

// Rows of one position lie far apart: without a word ahead each would begin with a wait.
template <class T>
void prefetch_row(const T* row, int64_t n) {
  constexpr auto kElements = kCacheLine / static_cast<int64_t>(sizeof(T));
  for (int64_t i = 0; i < n; i += kElements) {
    __builtin_prefetch(row + i);
  }
}

// sum += dout, and tokens += factor * dout.
template <class T>
void add_to_both(const T* dout, float factor, int64_t n, float* sum, float* token) {
  for_each_vector(n, [&](int64_t c, int count) {
    const vfloat x = load_some(dout + c, count);
    store_some(sum + c, load_some(sum + c, count) + x, count);
    store_some(token + c, load_some(token + c, count) + factor * x, count);
  });
}

template <class T>
void backward_positions(const EmbeddingBackward& a, const EmbeddingLookup* lookups,
                        RowsByPosition by, int64_t begin, int64_t end, float* tokens,
                        float* scratch) {
  float* sum = scratch;
  clear_row(tokens, a.vocab * a.C);
  for (int64_t p = begin; p < end; ++p) {
    clear_row(sum, a.C);
    for (int64_t i = by.starts[p]; i < by.starts[p + 1]; ++i) {
      if (i + 1 < by.starts[end] && a.c_stride == 1) {
        prefetch_row(dout_row<T>(a, by.rows[i + 1]), a.C);
      }
      const T* dout = side_by_side(dout_row<T>(a, by.rows[i]), a.c_stride, a.C, scratch + a.C);
      const EmbeddingLookup& lookup = lookups[by.rows[i]];
      if (lookup.factor == 0) {
        add_row(dout, a.C, sum);
      } else {
        add_to_both(dout, lookup.factor, a.C, sum,
                    tokens + lookup.token * static_cast<int64_t>(a.C));
      }
    }
    write_row(sum, a.C, static_cast<T*>(a.dposition_table) + p * a.C);
  }
}

void backward(const EmbeddingBackward& a, const EmbeddingLookup* lookups, RowsByPosition by,
              int64_t begin, int64_t end, float* tokens, float* scratch) {
  with_type(a.dtype, [&]<class T>(T) {
    backward_positions<T>(a, lookups, by, begin, end, tokens, scratch);
  });
}

void sum_tokens(const EmbeddingBackward& a, const float* tables, int64_t count, int64_t token,
                float* scratch) {
  clear_row(scratch, a.C);
  for (int64_t i = 0; i < count; ++i) {
    add_row(tables + (i * a.vocab + token) * a.C, a.C, scratch);
  }
  with_type(a.dtype, [&]<class T>(T) {
    write_row(scratch, a.C, static_cast<T*>(a.dtoken_table) + token * a.C);
  });
}

}  // namespace

const EmbeddingKernels embedding_kernels = {forward, backward, sum_tokens};

}  // namespace mlx_esm_kernels::cpu::CPU_TARGET
