#include "cpu/runs.h"

#include <algorithm>
#include <unordered_map>

namespace mlx_esm_kernels::cpu {

std::vector<Run> find_runs(const int64_t* ids, int length) {
  if (ids == nullptr) {
    return length > 0 ? std::vector<Run>{{0, length, 0}} : std::vector<Run>{};
  }
  std::unordered_map<int64_t, int32_t> numbers;
  std::vector<Run> runs;
  for (int begin = 0, end = 0; begin < length; begin = end) {
    const int64_t id = ids[begin];
    end = static_cast<int>(
        std::find_if(ids + begin, ids + length, [&](int64_t other) { return other != id; }) - ids);
    const auto fresh = static_cast<int32_t>(numbers.size());
    runs.push_back({begin, end, id == 0 ? -1 : numbers.try_emplace(id, fresh).first->second});
  }
  return runs;
}

}  // namespace mlx_esm_kernels::cpu
