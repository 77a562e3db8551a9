// Runs a launch: a fibre for every thread of a threadgroup, one threadgroup after another. Threads
// give way at barriers and where a simdgroup acts as one.
#include "machine.h"

#include <sys/mman.h>

#include <algorithm>
#include <cstdio>
#include <cstring>
#include <numeric>
#include <random>

#include "abi.h"

// Saves the callee-saved registers on the stack, and its pointer in *save; goes on from `load`.
extern "C" void emu_switch(void** save, void* load);
asm(R"(
.text
.globl emu_switch
.type emu_switch, @function
emu_switch:
  pushq %rbp
  pushq %rbx
  pushq %r12
  pushq %r13
  pushq %r14
  pushq %r15
  movq %rsp, (%rdi)
  movq %rsi, %rsp
  popq %r15
  popq %r14
  popq %r13
  popq %r12
  popq %rbx
  popq %rbp
  ret
.size emu_switch, .-emu_switch
)");

namespace emu {

Machine machine;

void fault(const std::string& sentence, uint32_t line, uint64_t code) {
  Launch& launch = *machine.launch;
  std::string text = std::string(launch.kernel) + ": " + sentence;
  if (machine.running != nullptr) {
    const uint32_t* g = machine.group;
    text += "; threadgroup (" + std::to_string(g[0]) + ", " + std::to_string(g[1]) + ", " +
            std::to_string(g[2]) + "), thread " + std::to_string(machine.running->index);
  }
  if (line != 0) {
    text += ", line " + std::to_string(line);
  }
  std::snprintf(launch.fault, sizeof(launch.fault), "%s.", text.c_str());
  launch.fault_address = code;
  void* abandoned;
  emu_switch(&abandoned, machine.scheduler);
  __builtin_unreachable();
}

void park(Wait wait, uint32_t line) {
  Thread& self = *machine.running;
  self.wait = wait;
  self.line = line;
  emu_switch(&self.stack_pointer, machine.scheduler);
}

namespace {

bool faulted() {
  return machine.launch->fault[0] != 0;
}

void thread_main() {
  machine.launch->entry();
  park(Wait::finished, 0);
}

void run(Thread& thread) {
  machine.running = &thread;
  thread.wait = Wait::none;
  emu_switch(&machine.scheduler, thread.stack_pointer);
}

// Faults outside threads are only recorded: there is nothing to leave.
void report(const std::string& sentence) {
  std::snprintf(machine.launch->fault, sizeof(machine.launch->fault), "%s: %s.",
                machine.launch->kernel, sentence.c_str());
}

int lane_of(int row, int column) {
  return (row & 4) * 4 + (row & 3) * 2 + (column & 4) * 2 + (column & 2) / 2;
}

void multiply(Thread* lanes) {
  float a[8][8], b[8][8];
  for (int r = 0; r < 8; ++r) {
    for (int c = 0; c < 8; ++c) {
      a[r][c] = lanes[lane_of(r, c)].a[c % 2];
      b[r][c] = lanes[lane_of(r, c)].b[c % 2];
    }
  }
  for (int r = 0; r < 8; ++r) {
    for (int c = 0; c < 8; ++c) {
      const Thread& lane = lanes[lane_of(r, c)];
      float sum = lane.c[c % 2];
      for (int k = 0; k < 8; ++k) {
        sum += a[r][k] * b[k][c];
      }
      lane.d[c % 2] = sum;
    }
  }
}

void gather(Thread* lanes) {
  uint32_t active = 0;
  for (int i = 0; i < kLanes; ++i) {
    active |= lanes[i].wait == Wait::gather ? 1u << i : 0u;
  }
  for (int i = 0; i < kLanes; ++i) {
    lanes[i].active = active;
    for (int j = 0; j < kLanes && (active >> i & 1u); ++j) {
      if (active >> j & 1u) {
        std::memcpy(static_cast<char*>(lanes[i].all) + j * lanes[i].bytes, lanes[j].mine,
                    lanes[i].bytes);
      }
    }
  }
}

// Whether the simdgroup acted as one, so that its threads may go on.
bool act_as_one(uint32_t simdgroup) {
  Thread* lanes = &machine.threads[simdgroup * kLanes];
  const Thread* first = nullptr;
  int waiting = 0;
  for (int i = 0; i < kLanes; ++i) {
    if (lanes[i].wait == Wait::finished) {
      continue;
    }
    ++waiting;
    first = first == nullptr ? &lanes[i] : first;
    if (lanes[i].wait != first->wait || lanes[i].line != first->line ||
        (first->wait == Wait::gather && std::strcmp(lanes[i].operation, first->operation) != 0)) {
      report("threads of a simdgroup wait in different places, lines " +
             std::to_string(first->line) + " and " + std::to_string(lanes[i].line));
      return false;
    }
  }
  if (first == nullptr || first->wait == Wait::threadgroup_barrier) {
    return false;
  }
  if (first->wait != Wait::gather && waiting < kLanes) {
    report("a lane has ended before line " + std::to_string(first->line) +
           ", where all 32 must come");
    return false;
  }
  if (first->wait == Wait::product) {
    multiply(lanes);
    ++machine.launch->totals.products;
  } else if (first->wait == Wait::gather) {
    gather(lanes);
    ++machine.launch->totals.gathers;
  } else {
    machine.simd_epoch[simdgroup] += (first->flags & 2u) != 0;
  }
  return true;
}

void start_threads(uint32_t count) {
  std::memset(machine.initialised, 0, machine.launch->threadgroup_bytes);
  std::memset(machine.touched, 0, machine.launch->threadgroup_bytes * sizeof(Touch));
  const uint32_t* group = machine.launch->group;
  for (uint32_t i = 0; i < count; ++i) {
    Thread& thread = machine.threads[i];
    thread.wait = Wait::none;
    thread.index = i;
    thread.position[0] = i % group[0];
    thread.position[1] = i / group[0] % group[1];
    thread.position[2] = i / group[0] / group[1];
    auto* top = reinterpret_cast<void**>(machine.stacks + (i + 1) * kStackBytes);
    top[-1] = nullptr;  // what thread_main would return to: it never does
    top[-2] = reinterpret_cast<void*>(&thread_main);
    thread.stack_pointer = top - 8;  // below it six registers
  }
}

void pass_barrier(uint32_t count) {
  const Thread& first = machine.threads[0];
  for (uint32_t i = 0; i < count; ++i) {
    const Thread& thread = machine.threads[i];
    if (thread.wait != Wait::threadgroup_barrier || thread.line != first.line) {
      report("not all threads reach the barrier of line " +
             std::to_string(std::max(first.line, thread.line)));
      return;
    }
  }
  machine.threadgroup_epoch += (first.flags & 2u) != 0;
  machine.device_epoch += (first.flags & 1u) != 0;
  ++machine.launch->totals.barriers;
}

void run_threadgroup(uint32_t count, const std::vector<uint32_t>& simdgroups,
                     const std::vector<uint32_t>& lanes) {
  start_threads(count);
  while (!faulted()) {
    for (const uint32_t simdgroup : simdgroups) {
      do {
        for (const uint32_t lane : lanes) {
          Thread& thread = machine.threads[simdgroup * kLanes + lane];
          if (thread.wait != Wait::finished && thread.wait != Wait::threadgroup_barrier) {
            run(thread);
          }
          if (faulted()) {
            return;
          }
        }
        machine.running = nullptr;
      } while (act_as_one(simdgroup));
      if (faulted()) {
        return;
      }
    }
    const auto finished = [](const Thread& t) { return t.wait == Wait::finished; };
    if (std::all_of(machine.threads.begin(), machine.threads.begin() + count, finished)) {
      return;
    }
    pass_barrier(count);
    for (uint32_t i = 0; i < count; ++i) {
      machine.threads[i].wait = Wait::none;
    }
  }
}

std::vector<uint32_t> in_order(uint32_t count, uint32_t order) {
  std::vector<uint32_t> list(count);
  std::iota(list.begin(), list.end(), 0u);
  if (order == 1) {
    std::reverse(list.begin(), list.end());
  } else if (order > 1) {
    std::mt19937 random(order);
    std::shuffle(list.begin(), list.end(), random);
  }
  return list;
}

void prepare() {
  if (machine.stacks == nullptr) {
    machine.stack_bytes = kMaxThreads * kStackBytes;
    machine.stacks =
        static_cast<uint8_t*>(mmap(nullptr, machine.stack_bytes, PROT_READ | PROT_WRITE,
                                   MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0));
    machine.threads.resize(kMaxThreads);
  }
}

}  // namespace

}  // namespace emu

using emu::machine;

// The threads of a threadgroup must be whole simdgroups. The fault, if any, is in the launch.
extern "C" void emu_run(emu::Launch* launch) {
  emu::prepare();
  machine.launch = launch;
  const uint32_t* grid = launch->grid;
  const uint32_t count = launch->group[0] * launch->group[1] * launch->group[2];
  const auto simdgroups = emu::in_order(count / emu::kLanes, launch->order);
  const auto lanes = emu::in_order(emu::kLanes, launch->order);
  machine.threadgroup_epoch = machine.device_epoch = 1;
  std::fill_n(machine.simd_epoch, emu::kMaxThreads / emu::kLanes, 1u);
  for (const uint32_t number : emu::in_order(grid[0] * grid[1] * grid[2], launch->order)) {
    machine.group_number = number;
    machine.group[0] = number % grid[0];
    machine.group[1] = number / grid[0] % grid[1];
    machine.group[2] = number / grid[0] / grid[1];
    ++machine.device_epoch;
    emu::run_threadgroup(count, simdgroups, lanes);
    machine.running = nullptr;
    if (launch->fault[0] != 0) {
      return;
    }
  }
}

// float32 to bfloat16, to nearest, ties to even: the compiler calls it where the CPU cannot. The
// result is in the low half of a vector register, as a float would be.
extern "C" float __truncsfbf2(float x) {
  uint32_t bits;
  std::memcpy(&bits, &x, 4);
  const bool nan = (bits & 0x7fffffffu) > 0x7f800000u;
  bits = nan ? bits >> 16 | 0x40u : (bits + 0x7fffu + (bits >> 16 & 1u)) >> 16;
  float out;
  std::memcpy(&out, &bits, 4);
  return out;
}

// ---- What kernels call --------------------------------------------------------------------------

extern "C" emu_u32 emu_builtin(emu_u32 id, emu_u32 axis) {
  const emu::Thread& self = *machine.running;
  const emu::Launch& launch = *machine.launch;
  switch (id) {
    case emu_thread_position_in_grid:
      return machine.group[axis] * launch.group[axis] + self.position[axis];
    case emu_thread_position_in_threadgroup:
      return self.position[axis];
    case emu_threadgroup_position_in_grid:
      return machine.group[axis];
    case emu_threads_per_threadgroup:
      return launch.group[axis];
    case emu_threadgroups_per_grid:
      return launch.grid[axis];
    case emu_threads_per_grid:
      return launch.grid[axis] * launch.group[axis];
    case emu_thread_index_in_threadgroup:
      return self.index;
    case emu_thread_index_in_simdgroup:
      return self.index % emu::kLanes;
    case emu_simdgroup_index_in_threadgroup:
      return self.index / emu::kLanes;
    case emu_simdgroups_per_threadgroup:
      return launch.group[0] * launch.group[1] * launch.group[2] / emu::kLanes;
    default:
      return emu::kLanes;
  }
}

extern "C" void* emu_argument(emu_u32 slot) {
  for (uint32_t i = 0; i < machine.launch->buffer_count; ++i) {
    if (machine.launch->buffers[i].slot == slot) {
      return machine.launch->buffers[i].address;
    }
  }
  emu::fault("nothing is bound to buffer " + std::to_string(slot));
}

extern "C" void* emu_constant_argument(emu_u32 slot) {
  return emu_argument(slot);
}

extern "C" void* emu_threadgroup_array(emu_u32 offset) {
  return machine.memory + offset;
}

extern "C" void emu_barrier(emu_u32 scope, emu_u32 flags, emu_u32 line) {
  machine.running->flags = flags;
  emu::park(
      scope == emu_scope_simdgroup ? emu::Wait::simdgroup_barrier : emu::Wait::threadgroup_barrier,
      line);
}

extern "C" emu_u32 emu_gather(const void* mine, emu_u32 bytes, void* all, const char* operation,
                              emu_u32 line) {
  emu::Thread& self = *machine.running;
  self.mine = mine;
  self.bytes = bytes;
  self.all = all;
  self.operation = operation;
  emu::park(emu::Wait::gather, line);
  return self.active;
}

extern "C" void emu_multiply_accumulate(float* d, const float* a, const float* b, const float* c,
                                        emu_u32 line) {
  emu::Thread& self = *machine.running;
  self.d = d;
  self.a = a;
  self.b = b;
  self.c = c;
  emu::park(emu::Wait::product, line);
}

extern "C" void emu_fault(const char* sentence, emu_u32 line) {
  emu::fault(sentence, line);
}
