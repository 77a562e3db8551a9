// Runs the CPU ops on plain memory against naive loops in float64, for builds with sanitisers:
// every buffer is allocated at its exact size, and two threads call the ops at once.
// Prints "N passed, M failed" and exits with 1 where one failed.
#include <atomic>
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <new>
#include <random>
#include <thread>
#include <vector>

#include "judging.h"
#include "linear/cpu/compute.h"
#include "masked_attention/cpu/compute.h"
#include "positional_embedding/cpu/compute.h"

using namespace mlx_esm_kernels::cpu;

// The ops' scratch is the one thing that is allocated with an alignment.
std::atomic<bool> refuse_once{false};

void* operator new(size_t size, std::align_val_t alignment) {
  const auto align = static_cast<size_t>(alignment);
  void* memory = refuse_once.exchange(false)
                     ? nullptr
                     : std::aligned_alloc(align, (size + align - 1) / align * align);
  return memory == nullptr ? throw std::bad_alloc() : memory;
}

void operator delete(void* memory, std::align_val_t) noexcept {
  std::free(memory);
}

namespace {

// ---- masked attention ---------------------------------------------------------------------------

struct AttentionCase {
  int B, H, L, D;
  int segments;  // 0: no ids; otherwise ids are i % (segments + 1), so 0 is padding
  bool bias;
};

struct AttentionTruth {
  std::vector<double> out, dq, dk, dv, dbias_k, dbias_v;
};

// Index into (B, H, L, D).
size_t at(const AttentionCase& c, int b, int h, int l) {
  return ((static_cast<size_t>(b) * c.H + h) * c.L + l) * c.D;
}

struct AttentionArrays {
  Floats q, k, v, dout, bias_k, bias_v;
  std::vector<int64_t> ids;
};

// One query: its probabilities over the keys, the bias last, then all that follows from them.
void naive_query(const AttentionCase& c, const AttentionArrays& x, int b, int h, int i,
                 AttentionTruth& t) {
  const double scale = 1 / std::sqrt(c.D);
  const auto id = [&](int l) { return x.ids.empty() ? 1 : x.ids[b * c.L + l]; };
  const float* q = &x.q[at(c, b, h, i)];
  const float* dout = &x.dout[at(c, b, h, i)];
  std::vector<int> keys;
  for (int j = 0; j < c.L && id(i) != 0; ++j) {
    if (id(j) == id(i)) {
      keys.push_back(j);
    }
  }
  const bool bias = c.bias && id(i) != 0;
  const size_t n = keys.size() + (bias ? 1 : 0);
  const auto key = [&](size_t j) {
    return j < keys.size() ? &x.k[at(c, b, h, keys[j])] : &x.bias_k[h * c.D];
  };
  const auto value = [&](size_t j) {
    return j < keys.size() ? &x.v[at(c, b, h, keys[j])] : &x.bias_v[h * c.D];
  };
  std::vector<double> p(n);
  double sum = 0, delta = 0;
  for (size_t j = 0; j < n; ++j) {
    sum += p[j] = std::exp(scale * dot(q, key(j), c.D));
  }
  for (size_t j = 0; j < n; ++j) {
    p[j] /= sum;
    delta += p[j] * dot(dout, value(j), c.D);
  }
  for (size_t j = 0; j < n; ++j) {
    const double ds = p[j] * (dot(dout, value(j), c.D) - delta) * scale;
    double* dk = j < keys.size() ? &t.dk[at(c, b, h, keys[j])] : &t.dbias_k[h * c.D];
    double* dv = j < keys.size() ? &t.dv[at(c, b, h, keys[j])] : &t.dbias_v[h * c.D];
    for (int d = 0; d < c.D; ++d) {
      t.out[at(c, b, h, i) + d] += p[j] * value(j)[d];
      t.dq[at(c, b, h, i) + d] += ds * key(j)[d];
      dk[d] += ds * q[d];
      dv[d] += p[j] * dout[d];
    }
  }
}

void attention_case(const AttentionCase& c, std::mt19937& rng) {
  const size_t size = at(c, c.B, 0, 0);
  const size_t bias_size = c.bias ? static_cast<size_t>(c.H) * c.D : 0;
  AttentionArrays x{random_floats(size, rng),
                    random_floats(size, rng),
                    random_floats(size, rng),
                    random_floats(size, rng),
                    random_floats(bias_size, rng),
                    random_floats(bias_size, rng),
                    {}};
  for (int i = 0; c.segments > 0 && i < c.B * c.L; ++i) {
    x.ids.push_back(i % (c.segments + 1));
  }
  const std::vector<double> zero(size), none(bias_size);
  AttentionTruth t{zero, zero, zero, zero, none, none};
  for (int b = 0; b < c.B; ++b) {
    for (int h = 0; h < c.H; ++h) {
      for (int i = 0; i < c.L; ++i) {
        naive_query(c, x, b, h, i, t);
      }
    }
  }
  const int64_t head = static_cast<int64_t>(c.L) * c.D;
  const auto view = [&](Floats& a) { return View{a.data(), c.H * head, head, c.D, 1}; };
  AttentionInputs in{c.B,
                     c.H,
                     c.L,
                     c.D,
                     Dtype::float32,
                     1 / std::sqrt(static_cast<float>(c.D)),
                     view(x.q),
                     view(x.k),
                     view(x.v),
                     x.ids.empty() ? nullptr : x.ids.data(),
                     c.bias ? x.bias_k.data() : nullptr,
                     c.bias ? x.bias_v.data() : nullptr};
  Floats out(size, NAN), lse(size / c.D, NAN), dq = out, dk = out, dv = out;
  Floats dbias_k(bias_size, NAN), dbias_v = dbias_k;
  attention_forward({in, view(out), lse.data()});
  attention_backward({in, view(out), view(x.dout), lse.data(), view(dq), view(dk), view(dv),
                      dbias_k.data(), dbias_v.data()});
  expect_close("attention out", out, t.out);
  expect_close("attention dq", dq, t.dq);
  expect_close("attention dk", dk, t.dk);
  expect_close("attention dv", dv, t.dv);
  expect_close("attention dbias_k", dbias_k, t.dbias_k);
  expect_close("attention dbias_v", dbias_v, t.dbias_v);
}

// Half precision: only that memory and threads are in order, and that nothing is NaN.
void half_attention_case(Dtype dtype, int L, int D) {
  const size_t size = static_cast<size_t>(2) * L * D;
  std::vector<uint16_t> q(size, 0x3c00), k = q, v = q, dout = q, out = q, dq = q, dk = q, dv = q;
  Floats lse(2 * L);
  const auto view = [&](std::vector<uint16_t>& a) { return View{a.data(), L * D, L * D, D, 1}; };
  AttentionInputs in{2,       1,       L,       D,       dtype,   0.125f,
                     view(q), view(k), view(v), nullptr, nullptr, nullptr};
  attention_forward({in, view(out), lse.data()});
  attention_backward(
      {in, view(out), view(dout), lse.data(), view(dq), view(dk), view(dv), nullptr, nullptr});
  // All values are equal, so that every output is that value again.
  out == v ? ++passed : ++failed;
}

// Several chunks of keys wait for each other's turns: a failed one must not keep the others
// waiting.
void out_of_memory_case() {
  const int L = 200, D = 1024;  // more scratch than any other case needs, on any target
  Floats x(L * D, 1), out(L * D), dq = out, dk = out, dv = out, lse(L);
  const auto view = [&](Floats& a) { return View{a.data(), L * D, L * D, D, 1}; };
  const AttentionInputs in{1,       1,       L,       D,       Dtype::float32, 0.1f,
                           view(x), view(x), view(x), nullptr, nullptr,        nullptr};
  refuse_once = true;
  try {
    attention_backward(
        {in, view(out), view(x), lse.data(), view(dq), view(dk), view(dv), nullptr, nullptr});
    ++failed;
  } catch (const std::bad_alloc&) {
    ++passed;
  }
}

// ---- linear and positional embedding ------------------------------------------------------------

// Two layers of one x with the same weights, the first with a residual.
void linear_case(int M, int N, int K, bool gelu, std::mt19937& rng) {
  Floats x = random_floats(static_cast<size_t>(M) * K, rng);
  Floats w = random_floats(static_cast<size_t>(N) * K, rng);
  Floats bias = random_floats(N, rng), dy = random_floats(static_cast<size_t>(M) * N, rng);
  std::vector<double> y_true(dy.size()), dx_true(x.size()), dw_true(w.size()), db_true(N);
  for (int m = 0; m < M; ++m) {
    for (int n = 0; n < N; ++n) {
      const double h = dot(&x[m * K], &w[n * K], K) + bias[n];
      const double cdf = 0.5 * std::erfc(-h / std::sqrt(2.0));
      const double pdf = std::exp(-h * h / 2) / std::sqrt(2 * M_PI);
      y_true[m * N + n] = (gelu ? h * cdf : h) + dy[m * N + n];
      const double dh = dy[m * N + n] * (gelu ? cdf + h * pdf : 1);
      db_true[n] += dh;
      for (int k = 0; k < K; ++k) {
        dx_true[m * K + k] += 2 * dh * w[n * K + k];
        dw_true[n * K + k] += dh * x[m * K + k];
      }
    }
  }
  const LinearInputs in{
      Dtype::float32, {{x.data(), K, 1}, M, K}, {{w.data(), K, 1}, N, K}, Dtype::float32, gelu};
  Floats y(dy.size(), NAN), pre = y, y2 = y, pre2 = y, dx(x.size(), NAN), dw(w.size(), NAN),
                            dw2 = dw, db(N, NAN), db2 = db;
  const LinearForward forward[] = {
      {in, bias.data(), dy.data(), y.data(), gelu ? pre.data() : nullptr},
      {in, bias.data(), nullptr, y2.data(), gelu ? pre2.data() : nullptr}};
  linear_forward(forward, 2);
  const Matrix cotangent{{dy.data(), N, 1}, M, N};
  const LinearBackward backward[] = {
      {in, cotangent, gelu ? pre.data() : nullptr, dx.data(), dw.data(), db.data()},
      {in, cotangent, gelu ? pre2.data() : nullptr, dx.data(), dw2.data(), db2.data()}};
  linear_backward(backward, 2);
  expect_close("linear y", y, y_true);
  expect_close("linear dx", dx, dx_true);
  expect_close("linear dweight", dw, dw_true);
  expect_close("linear dweight of another layer", dw2, dw_true);
  expect_close("linear dbias", db, db_true);
}

// One protein a row, no padding: position p of every row is the token table's row plus row 2 + p.
void embedding_case(int B, int L, int C, std::mt19937& rng) {
  const int V = 7, P = L + 2;
  Floats tokens_table = random_floats(V * C, rng), positions_table = random_floats(P * C, rng);
  Floats dout = random_floats(static_cast<size_t>(B) * L * C, rng);
  std::vector<int64_t> tokens;
  for (int i = 0; i < B * L; ++i) {
    tokens.push_back(2 + i % 5);
  }
  std::vector<double> out_true, dtokens_true(V * C), dpositions_true(P * C);
  for (int i = 0; i < B * L; ++i) {
    for (int c = 0; c < C; ++c) {
      out_true.push_back(static_cast<double>(tokens_table[tokens[i] * C + c]) +
                         positions_table[(2 + i % L) * C + c]);
      dtokens_true[tokens[i] * C + c] += dout[i * C + c];
      dpositions_true[(2 + i % L) * C + c] += dout[i * C + c];
    }
  }
  const EmbeddingInputs in{B, L, C, V, P, 1, 0, false, Dtype::float32, tokens.data(), nullptr};
  Floats out(dout.size(), NAN), dtokens(V * C, NAN), dpositions(P * C, NAN);
  embedding_forward({in, {tokens_table.data(), C, 1}, {positions_table.data(), C, 1}, out.data()});
  embedding_backward({in, dout.data(), L * C, C, 1, dtokens.data(), dpositions.data()});
  expect_close("embedding out", out, out_true);
  expect_close("embedding dtoken_table", dtokens, dtokens_true);
  expect_close("embedding dposition_table", dpositions, dpositions_true);
}

void all_cases(unsigned seed) {
  std::mt19937 rng(seed);
  for (int L : {1, 7, 8, 24, 25, 97, 130, 300}) {
    for (int D : {1, 5, 16, 64}) {
      attention_case({2, 2, L, D, L % 4, L % 2 == 0}, rng);
    }
    for (Dtype dtype : {Dtype::float16, Dtype::bfloat16}) {
      half_attention_case(dtype, L, 9);
    }
  }
  attention_case({1, 1, 700, 8, 0, false}, rng);  // several chunks of keys take turns
  attention_case({1, 2, 150, 200, 2, true}, rng);
  for (int M : {1, 5, 255, 600, 2100}) {
    linear_case(M, 33, 19, M % 2 == 0, rng);
    linear_case(M, 1, 8, M % 2 == 1, rng);
  }
  linear_case(3, 600, 300, true, rng);
  for (int C : {1, 16, 37}) {
    embedding_case(3, 50, C, rng);
  }
  bfloat16_linear_cases(rng);
  int8_linear_cases(rng);
  row_op_cases(rng);
}

}  // namespace

int main() {
  std::thread other([] { all_cases(2); });
  all_cases(1);
  other.join();
  out_of_memory_case();
  std::printf("%d passed, %d failed\n", passed.load(), failed.load());
  return failed == 0 ? 0 : 1;
}
