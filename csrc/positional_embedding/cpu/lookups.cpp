#include "positional_embedding/cpu/lookups.h"

#include <algorithm>
#include <stdexcept>
#include <string>

#include "cpu/runs.h"

namespace mlx_esm_kernels::cpu {

namespace {

[[noreturn]] void fail(const std::string& sentence) {
  throw std::invalid_argument("[positional_embedding] " + sentence);
}

std::string place(int64_t at, int length) {
  return "[" + std::to_string(at / length) + ", " + std::to_string(at % length) + "]";
}

// What has been seen of a segment, padding apart.
struct Seen {
  int32_t length = 0, masked = 0;
};

float token_factor(const Seen& segment) {
  const float kept = 1.0f - static_cast<float>(segment.masked) / static_cast<float>(segment.length);
  return segment.masked == segment.length ? 0.0f : kKeptInTraining / kept;
}

void check_token(const EmbeddingInputs& in, int64_t at) {
  const int64_t token = in.tokens[at];
  if (token < 0 || token >= in.vocab) {
    fail("tokens must be in [0, " + std::to_string(in.vocab) + "), the rows of token_table; got " +
         std::to_string(token) + " at " + place(at, in.L) + ".");
  }
}

void check_lengths(const EmbeddingInputs& in, const std::vector<Seen>& segments, int b) {
  int32_t longest = 0;
  for (const Seen& s : segments) {
    longest = std::max(longest, s.length);
  }
  if (longest > 0 && in.padding_idx + longest >= in.positions) {
    fail("position_table must have more than padding_idx + length = " +
         std::to_string(in.padding_idx) + " + " + std::to_string(longest) +
         " rows for the longest sequence (batch row " + std::to_string(b) + "); got " +
         std::to_string(in.positions) + " rows. Crop the sequence or use a longer table.");
  }
}

// Fills in the lookups of batch row b; those of padding stay as they come.
void find_lookups_of_row(const EmbeddingInputs& in, int b, EmbeddingLookup* lookups) {
  const int64_t row = static_cast<int64_t>(b) * in.L;
  std::vector<Run> runs =
      find_runs(in.segment_ids == nullptr ? nullptr : in.segment_ids + row, in.L);
  std::erase_if(runs, [](const Run& run) { return run.segment < 0; });
  std::vector<Seen> segments;
  for (const Run& run : runs) {
    if (run.segment == static_cast<int32_t>(segments.size())) {
      segments.emplace_back();
    }
    Seen seen = segments[run.segment];
    for (int l = run.begin; l < run.end; ++l) {
      const int64_t token = in.tokens[row + l];
      if (token == in.padding_idx) {
        continue;
      }
      check_token(in, row + l);
      ++seen.length;
      seen.masked += token == in.mask_idx;
      lookups[l] = {static_cast<int32_t>(token), static_cast<int32_t>(in.padding_idx + seen.length),
                    1.0f};
    }
    segments[run.segment] = seen;
  }
  check_lengths(in, segments, b);
  if (!in.token_dropout) {
    return;
  }
  for (const Run& run : runs) {
    const float factor = token_factor(segments[run.segment]);
    for (int l = run.begin; l < run.end; ++l) {
      lookups[l].factor = lookups[l].token == in.mask_idx ? 0.0f : factor;
    }
  }
}

}  // namespace

std::vector<EmbeddingLookup> find_lookups(const EmbeddingInputs& in) {
  std::vector<EmbeddingLookup> lookups(static_cast<size_t>(in.B) * in.L,
                                       EmbeddingLookup{0, kPaddingPosition, 0.0f});
  for (int b = 0; b < in.B; ++b) {
    find_lookups_of_row(in, b, lookups.data() + static_cast<int64_t>(b) * in.L);
  }
  return lookups;
}

}  // namespace mlx_esm_kernels::cpu
