// A small pool of threads that all ops share. Free of MLX.
#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>

namespace mlx_esm_kernels::cpu {

// Threads that work on one call, the caller included: MLX_ESM_KERNELS_NUM_THREADS, or the cores
// that this process may use (its affinity and its cgroup's quota).
// Throws std::invalid_argument where the variable is not a whole number from 1 to 1024.
int num_threads();

// Calls task(0) ... task(count - 1), each once, and returns when all are done. Indices are claimed
// in ascending order, so a task may wait for one with a smaller index. The caller works too and
// never waits for a thread that has claimed nothing. The first exception of a task is rethrown.
void parallel_for(int64_t count, const std::function<void(int64_t)>& task);

// Memory of this thread, 64-byte aligned, at least `floats` long, valid until the next call.
float* thread_scratch(size_t floats);

}  // namespace mlx_esm_kernels::cpu
