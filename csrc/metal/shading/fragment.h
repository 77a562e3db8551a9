// 8 x 8 fragments of float32, spread over a simdgroup: products, reductions and their loads. The
// host puts `#define ELEMENT float|half|bfloat` before this text.
#pragma once

#include <metal_simdgroup>
#include <metal_simdgroup_matrix>
#include <metal_stdlib>

using namespace metal;

typedef vec<ELEMENT, 2> Element2;
typedef vec<ELEMENT, 4> Element4;

// Operands are float32 whatever the arrays hold: before Apple's ninth family a product of halves is
// no faster, and there is none of bfloat.
typedef simdgroup_matrix<float, 8, 8> Matrix;

// Where a lane's two elements lie: (row, column) and (row, column + 1).
inline int fragment_row(uint lane) {
  return int((lane / 4 & 4) + lane / 2 % 4);
}
inline int fragment_column(uint lane) {
  return int((lane / 4 & 2) * 2 + lane % 2 * 2);
}

// c += a b
inline void multiply_accumulate(thread float2& c, float2 a, float2 b) {
  Matrix left, right, sum;
  reinterpret_cast<thread float2&>(left.thread_elements()) = a;
  reinterpret_cast<thread float2&>(right.thread_elements()) = b;
  reinterpret_cast<thread float2&>(sum.thread_elements()) = c;
  simdgroup_multiply_accumulate(sum, left, right, sum);
  c = reinterpret_cast<thread float2&>(sum.thread_elements());
}

// Over the four lanes that share a row; each gets the result.
inline float row_sum(float x) {
  x += simd_shuffle_xor(x, ushort(1));
  return x + simd_shuffle_xor(x, ushort(8));
}
inline float row_max(float x) {
  x = max(x, simd_shuffle_xor(x, ushort(1)));
  return max(x, simd_shuffle_xor(x, ushort(8)));
}

// Over the eight lanes that share a column.
inline float column_sum(float x) {
  x += simd_shuffle_xor(x, ushort(2));
  x += simd_shuffle_xor(x, ushort(4));
  return x + simd_shuffle_xor(x, ushort(16));
}

// A fragment of a row-major matrix: `at` is its first element, `stride`, an even number, leads to
// the next row. Columns are even, so that a pair is one load.
inline float2 load_fragment(threadgroup const ELEMENT* at, int stride, int row, int column) {
  return float2(*reinterpret_cast<threadgroup const Element2*>(at + row * stride + column));
}

// The same of its transpose.
inline float2 load_transposed(threadgroup const ELEMENT* at, int stride, int row, int column) {
  threadgroup const ELEMENT* from = at + column * stride + row;
  return float2(float(from[0]), float(from[stride]));
}
