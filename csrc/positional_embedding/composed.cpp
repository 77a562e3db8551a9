#include "graph/keep.h"
#include "positional_embedding/lookup.h"
#include "positional_embedding/positional_embedding.h"

namespace mlx_esm_kernels {

namespace {

// Per token: the number of its segment in the row (0-based) and its 1-based place in the segment.
struct Places {
  mx::array segment, place;
};

// True where a sorted row starts a new value.
mx::array starts(const mx::array& sorted, mx::Stream s) {
  const int B = sorted.shape(0), L = sorted.shape(1);
  const mx::array first = mx::full({B, 1}, true, mx::bool_, s);
  if (L == 1) {
    return first;
  }
  const mx::array left = mx::slice(sorted, {0, 0}, {B, L - 1}, s);
  const mx::array right = mx::slice(sorted, {0, 1}, {B, L}, s);
  return mx::concatenate({first, mx::not_equal(left, right, s)}, 1, s);
}

// Two sorts instead of an L x L comparison: the first numbers the ids densely, the second, on
// (number, column), groups them stably whatever sort MLX uses.
Places find_places(const mx::array& ids, mx::Stream s) {
  const int L = ids.shape(1);
  const mx::array by_id = mx::argsort(ids, 1, s);
  const mx::array number_sorted = mx::subtract(
      mx::cumsum(mx::astype(starts(mx::take_along_axis(ids, by_id, 1, s), s), mx::int64, s), 1,
                 false, true, s),
      mx::array(1, mx::int64), s);
  const mx::array none = mx::zeros(ids.shape(), mx::int64, s);
  const mx::array segment = mx::put_along_axis(none, by_id, number_sorted, 1, s);

  const mx::array column = mx::reshape(mx::arange(0, L, mx::int64, s), {1, L}, s);
  const mx::array key = mx::add(mx::multiply(segment, mx::array(L, mx::int64), s), column, s);
  const mx::array order = mx::argsort(key, 1, s);
  const mx::array begins = starts(mx::take_along_axis(segment, order, 1, s), s);
  const mx::array begin =
      mx::cummax(mx::where(begins, column, mx::array(0, mx::int64), s), 1, false, true, s);
  const mx::array place = mx::add(mx::subtract(mx::broadcast_to(column, ids.shape(), s), begin, s),
                                  mx::array(1, mx::int64), s);
  return {segment, mx::put_along_axis(none, order, place, 1, s)};
}

// 0.88 / (1 - n_mask / n) per token, over its segment; 0 where everything is masked.
mx::array dropout_scale(const mx::array& segment, const mx::array& masked, mx::Stream s) {
  const auto count = [&](const mx::array& what) {
    const mx::array none = mx::zeros(segment.shape(), mx::float32, s);
    const mx::array sums =
        mx::scatter_add_axis(none, segment, mx::astype(what, mx::float32, s), 1, s);
    return mx::take_along_axis(sums, segment, 1, s);
  };
  const mx::array n = count(mx::ones(segment.shape(), mx::float32, s));
  const mx::array kept = mx::subtract(mx::array(1.0f), mx::divide(count(masked), n, s), s);
  const mx::array none = mx::array(0.0f);
  const mx::array some = mx::greater(kept, none, s);
  return mx::where(
      some, mx::divide(mx::array(kKeptInTraining), mx::where(some, kept, mx::array(1.0f), s), s),
      none, s);
}

}  // namespace

mx::array positional_embedding_composed(const EmbeddingOperands& x, const EmbeddingOptions& options,
                                        mx::Stream s) {
  const mx::array none = mx::array(0, mx::int64);
  const mx::array tokens = mx::astype(x.tokens, mx::int64, s);
  mx::array real = mx::not_equal(tokens, mx::array(options.padding_idx, mx::int64), s);
  mx::array ids = mx::astype(real, mx::int64, s);
  if (x.segment_ids) {
    ids = mx::where(real, mx::astype(*x.segment_ids, mx::int64, s), none, s);
    real = mx::not_equal(ids, none, s);
  }
  const Places places = find_places(ids, s);
  // Widened before the lookup, so that the gradient is summed in float32.
  const auto rows = [&](const mx::array& table, const mx::array& index) {
    return mx::take(mx::astype(table, mx::float32, s), mx::where(real, index, none, s), 0, s);
  };
  mx::array token_part = rows(x.token_table, tokens);
  const mx::array zero = mx::array(0.0f);
  if (options.mask_idx) {
    const mx::array masked =
        mx::logical_and(real, mx::equal(tokens, mx::array(*options.mask_idx, mx::int64), s), s);
    const mx::array scale = dropout_scale(places.segment, masked, s);
    token_part = mx::where(mx::expand_dims(masked, 2, s), zero,
                           mx::multiply(token_part, mx::expand_dims(scale, 2, s), s), s);
  }
  const mx::array position = mx::add(places.place, mx::array(options.padding_idx, mx::int64), s);
  const mx::array sum = mx::add(token_part, rows(x.position_table, position), s);
  return keep(mx::expand_dims(real, 2, s), mx::astype(sum, x.token_table.dtype(), s), s);
}

}  // namespace mlx_esm_kernels
