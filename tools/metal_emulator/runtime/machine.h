// The GPU that is emulated: its threads, what they wait for, its memory, and what it has counted.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

namespace emu {

constexpr int kLanes = 32;
constexpr int kMaxThreads = 1024;
constexpr uint32_t kThreadgroupBytes = 32768;
constexpr size_t kStackBytes = 128 * 1024;

enum class Wait { none, gather, product, simdgroup_barrier, threadgroup_barrier, finished };

struct Thread {
  void* stack_pointer;
  Wait wait;
  uint32_t index;  // in the threadgroup
  uint32_t position[3];
  // What it waits with.
  uint32_t line, bytes, flags;
  const char* operation;
  const void* mine;
  void* all;
  uint32_t active;
  const float *a, *b, *c;
  float* d;
};

// Who touched a byte last, for races. Epochs count barriers.
struct Touch {
  uint32_t write_epoch, write_simd_epoch;
  uint32_t read_epoch, read_simd_epoch;
  uint32_t reading_simdgroups;          // in read_epoch, a bit each
  uint16_t writer, reader;              // thread + 1; kMany: several of one simdgroup
  uint32_t writer_group, reader_group;  // threadgroup + 1, for device memory
};
constexpr uint16_t kMany = 0xffff;

struct Counts {
  uint64_t read_bytes, reads, written_bytes, writes;
};

// Memory bound to a slot. `defined` marks the bytes that something has written; null: all are.
struct Buffer {
  uint32_t slot, written;
  uint8_t *address, *begin, *end;
  uint8_t* defined;
  const char* name;
  Counts counts;
  Touch* touched;
};

struct Totals {
  Counts threadgroup;
  uint64_t products, barriers, gathers;
};

struct Launch {
  void (*entry)();
  const char* kernel;
  uint32_t grid[3], group[3];
  uint32_t threadgroup_bytes;
  uint32_t order;  // 0 forward, 1 reverse, others: seeds of random orders
  Buffer* buffers;
  uint32_t buffer_count;
  Totals totals;
  char fault[1024];
  uint64_t fault_address;  // of the code
};

struct Machine {
  Launch* launch = nullptr;
  std::vector<Thread> threads;
  Thread* running = nullptr;
  void* scheduler = nullptr;  // its stack pointer
  uint8_t* stacks = nullptr;
  size_t stack_bytes = 0;
  alignas(256) uint8_t memory[kThreadgroupBytes];
  uint8_t initialised[kThreadgroupBytes];
  Touch touched[kThreadgroupBytes];
  uint32_t group[3];
  uint32_t group_number;
  uint32_t threadgroup_epoch, device_epoch;
  uint32_t simd_epoch[kMaxThreads / kLanes];
};
extern Machine machine;

// Ends the launch with a sentence; does not return to the kernel.
[[noreturn]] void fault(const std::string& sentence, uint32_t line = 0, uint64_t code = 0);

// Leaves the running thread until the scheduler goes on with it.
void park(Wait wait, uint32_t line);

}  // namespace emu
