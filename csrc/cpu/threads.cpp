#include "cpu/threads.h"

#include <atomic>
#include <condition_variable>
#include <cstdlib>
#include <deque>
#include <exception>
#include <fstream>
#include <memory>
#include <mutex>
#include <new>
#include <stdexcept>
#include <string>
#include <thread>

#ifdef __linux__
#include <sched.h>
#endif

namespace mlx_esm_kernels::cpu {

namespace {

// Cores that a cgroup (version 2) grants, or 0 where it sets no limit.
int cgroup_cores() {
  std::ifstream file("/sys/fs/cgroup/cpu.max");
  std::string quota;
  double period = 0;
  if (!(file >> quota >> period) || quota == "max" || period <= 0) {
    return 0;
  }
  const double cores = std::strtod(quota.c_str(), nullptr) / period;
  return cores < 1 ? 1 : static_cast<int>(cores);
}

int usable_cores() {
  int cores = static_cast<int>(std::thread::hardware_concurrency());
#ifdef __linux__
  cpu_set_t set;
  if (sched_getaffinity(0, sizeof set, &set) == 0) {
    cores = CPU_COUNT(&set);
  }
#endif
  const int granted = cgroup_cores();
  if (granted > 0 && granted < cores) {
    cores = granted;
  }
  return cores < 1 ? 1 : cores;
}

int configured_threads() {
  const char* text = std::getenv("MLX_ESM_KERNELS_NUM_THREADS");
  if (text == nullptr || *text == '\0') {
    return usable_cores();
  }
  char* end = nullptr;
  const long threads = std::strtol(text, &end, 10);
  if (*end != '\0' || threads < 1 || threads > 1024) {
    throw std::invalid_argument(
        std::string(
            "[cpu] MLX_ESM_KERNELS_NUM_THREADS must be a whole number from 1 to 1024; got ") +
        text + ".");
  }
  return static_cast<int>(threads);
}

// One parallel_for. It lives as long as a thread holds it; `task` only until all indices are done.
struct Job {
  const std::function<void(int64_t)>* task;
  int64_t count;
  std::atomic<int64_t> next{0};
  std::atomic<int64_t> done{0};
  std::mutex mutex;
  std::condition_variable finished;
  std::exception_ptr error;

  // Claims and runs indices until none is left.
  void work() {
    int64_t ran = 0;
    for (int64_t i = next.fetch_add(1); i < count; i = next.fetch_add(1)) {
      try {
        (*task)(i);
      } catch (...) {
        std::lock_guard lock(mutex);
        if (!error) {
          error = std::current_exception();
        }
      }
      ++ran;
    }
    if (ran > 0 && done.fetch_add(ran) + ran == count) {
      std::lock_guard lock(mutex);
      finished.notify_all();
    }
  }

  void wait() {
    // The last tasks are usually about to end: a short spin is cheaper than a sleep.
    for (int spin = 0; spin < 2000 && done.load() < count; ++spin) {
      std::this_thread::yield();
    }
    std::unique_lock lock(mutex);
    finished.wait(lock, [&] { return done.load() == count; });
  }
};

class Pool {
 public:
  // Never destroyed: its threads are detached and may outlive static destructors.
  static Pool& instance() {
    static Pool* pool = new Pool(num_threads() - 1);
    return *pool;
  }

  void run(const std::shared_ptr<Job>& job) {
    {
      std::lock_guard lock(mutex_);
      jobs_.push_back(job);
    }
    posted_.fetch_add(1);
    wake_.notify_all();
    job->work();
    {
      std::lock_guard lock(mutex_);
      std::erase(jobs_, job);
    }
    job->wait();
  }

 private:
  explicit Pool(int workers) {
    for (int i = 0; i < workers; ++i) {
      std::thread([this] { serve(); }).detach();
    }
  }

  std::shared_ptr<Job> take() {
    // The ops of a model follow each other closely: for a while a spin is cheaper than a sleep.
    const int64_t seen = posted_.load();
    for (int spin = 0; spin < kSpins && posted_.load() == seen; ++spin) {
      std::this_thread::yield();
    }
    std::unique_lock lock(mutex_);
    wake_.wait(lock, [&] {
      while (!jobs_.empty() && jobs_.front()->next.load() >= jobs_.front()->count) {
        jobs_.pop_front();
      }
      return !jobs_.empty();
    });
    return jobs_.front();
  }

  void serve() {
    while (true) {
      take()->work();
    }
  }

  static constexpr int kSpins = 200;  // about 0.1 ms

  std::atomic<int64_t> posted_{0};
  std::mutex mutex_;
  std::condition_variable wake_;
  std::deque<std::shared_ptr<Job>> jobs_;
};

struct Scratch {
  float* data = nullptr;
  size_t size = 0;

  ~Scratch() {
    release();
  }

  void release() {
    ::operator delete(data, std::align_val_t(64));
    data = nullptr;
    size = 0;
  }
};

}  // namespace

int num_threads() {
  static const int threads = configured_threads();
  return threads;
}

void parallel_for(int64_t count, const std::function<void(int64_t)>& task) {
  if (count <= 1 || num_threads() == 1) {
    for (int64_t i = 0; i < count; ++i) {
      task(i);
    }
    return;
  }
  auto job = std::make_shared<Job>();
  job->task = &task;
  job->count = count;
  Pool::instance().run(job);
  if (job->error) {
    std::rethrow_exception(job->error);
  }
}

float* thread_scratch(size_t floats) {
  thread_local Scratch scratch;
  if (scratch.size < floats) {
    scratch.release();
    scratch.data =
        static_cast<float*>(::operator new(floats * sizeof(float), std::align_val_t(64)));
    scratch.size = floats;
  }
  return scratch.data;
}

}  // namespace mlx_esm_kernels::cpu
