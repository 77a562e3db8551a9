// What the compiler calls before every load and store: bounds, races, values that nothing has set,
// and how much was moved.
#include <dlfcn.h>

#include <string>
#include <unordered_set>

#include "machine.h"

namespace emu {

namespace {

bool same_interval(uint32_t epoch, uint32_t now, uint16_t other, uint32_t simd_epoch) {
  const Thread& self = *machine.running;
  const uint32_t simdgroup = self.index / kLanes;
  if (epoch != now || other == self.index + 1) {
    return false;
  }
  return other == kMany || (other - 1u) / kLanes != simdgroup ||
         simd_epoch == machine.simd_epoch[simdgroup];
}

// Where a byte is, spelt out only for a report.
struct Where {
  const char* memory;
  int64_t at;
};

std::string text(Where where) {
  return "byte " + std::to_string(where.at) + " of " + where.memory;
}

void race(const char* what, Where where, uint16_t other, uint64_t code) {
  const std::string who =
      other == kMany ? "several threads" : "thread " + std::to_string(other - 1);
  fault(std::string("data race: a ") + what + " of " + text(where) + " and an access by " + who +
            " have no barrier between them",
        0, code);
}

// A byte of threadgroup memory, or of a buffer that is written.
void touch(Touch& t, bool write, uint32_t now, Where where, uint64_t code) {
  const Thread& self = *machine.running;
  const uint32_t simdgroup = self.index / kLanes;
  const auto own = static_cast<uint16_t>(self.index + 1);
  if (t.writer != 0 && same_interval(t.write_epoch, now, t.writer, t.write_simd_epoch)) {
    race(write ? "write" : "read", where, t.writer, code);
  }
  if (write) {
    const bool others = t.read_epoch == now && (t.reading_simdgroups & ~(1u << simdgroup)) != 0;
    const bool lanes = t.reader != 0 && (t.reading_simdgroups >> simdgroup & 1u) != 0 &&
                       t.read_epoch == now && t.reader != own &&
                       t.read_simd_epoch == machine.simd_epoch[simdgroup];
    if (others || lanes) {
      race("write", where, t.reader, code);
    }
    t.writer = own;
    t.write_epoch = now;
    t.write_simd_epoch = machine.simd_epoch[simdgroup];
    return;
  }
  if (t.read_epoch != now) {
    t.reading_simdgroups = 0;
    t.reader = 0;
  }
  const bool fresh = t.reader == 0 || t.read_simd_epoch != machine.simd_epoch[simdgroup];
  t.reader = fresh || t.reader == own ? own : kMany;
  t.read_epoch = now;
  t.read_simd_epoch = machine.simd_epoch[simdgroup];
  t.reading_simdgroups |= 1u << simdgroup;
}

void count(Counts& counts, bool write, uint32_t bytes) {
  (write ? counts.written_bytes : counts.read_bytes) += bytes;
  ++(write ? counts.writes : counts.reads);
}

void threadgroup_access(uint32_t at, uint32_t bytes, bool write, uint64_t code) {
  if (at + bytes > machine.launch->threadgroup_bytes) {
    fault("threadgroup memory is accessed at byte " + std::to_string(at) + ", beyond its end", 0,
          code);
  }
  for (uint32_t i = at; i < at + bytes; ++i) {
    if (!write && !machine.initialised[i]) {
      fault("threadgroup memory is read at byte " + std::to_string(i) + " before it is written", 0,
            code);
    }
    machine.initialised[i] = 1;
    touch(machine.touched[i], write, machine.threadgroup_epoch, {"threadgroup memory", i}, code);
  }
  count(machine.launch->totals.threadgroup, write, bytes);
}

void check_groups(Touch& t, bool write, const Buffer& buffer, uint64_t code) {
  const uint32_t own = machine.group_number + 1;
  const bool foreign_write = t.writer_group != 0 && t.writer_group != own;
  const bool foreign_read = write && t.reader_group != 0 && t.reader_group != own;
  if (foreign_write || foreign_read) {
    fault(std::string("two threadgroups access the same byte of ") + buffer.name +
              " and one writes it",
          0, code);
  }
  (write ? t.writer_group : t.reader_group) = own;
}

void buffer_access(Buffer& buffer, uint8_t* at, uint32_t bytes, bool write, uint64_t code) {
  const auto place = [&](int64_t i) {
    return "byte " + std::to_string(at + i - buffer.address) + " of " + buffer.name;
  };
  if (write && !buffer.written) {
    fault("a write to " + place(0) + ", which is bound for reading", 0, code);
  }
  for (uint32_t i = 0; i < bytes; ++i) {
    const int64_t offset = at + i - buffer.begin;
    if (buffer.defined != nullptr) {
      if (!write && !buffer.defined[offset]) {
        fault("a read of " + place(i) + " before anything wrote it", 0, code);
      }
      buffer.defined[offset] |= static_cast<uint8_t>(write);
    }
    if (buffer.touched != nullptr) {
      check_groups(buffer.touched[offset], write, buffer, code);
      touch(buffer.touched[offset], write, machine.device_epoch,
            {buffer.name, at + i - buffer.address}, code);
    }
  }
  count(buffer.counts, write, bytes);
}

// Function constants, and tables that the compiler made.
bool in_library(void* at) {
  static std::unordered_set<void*> known;
  if (known.count(at) != 0) {
    return true;
  }
  Dl_info own, other;
  const bool inside = dladdr(reinterpret_cast<void*>(machine.launch->entry), &own) != 0 &&
                      dladdr(at, &other) != 0 && own.dli_fbase == other.dli_fbase;
  if (inside) {
    known.insert(at);
  }
  return inside;
}

void access(void* pointer, uint32_t bytes, bool write, bool aligned, void* caller) {
  auto* at = static_cast<uint8_t*>(pointer);
  const auto code = reinterpret_cast<uint64_t>(caller);
  if (at >= machine.stacks && at < machine.stacks + machine.stack_bytes) {
    return;
  }
  if (aligned && reinterpret_cast<uintptr_t>(at) % bytes != 0) {
    fault("an access of " + std::to_string(bytes) + " bytes is not aligned", 0, code);
  }
  if (at >= machine.memory && at < machine.memory + kThreadgroupBytes) {
    threadgroup_access(static_cast<uint32_t>(at - machine.memory), bytes, write, code);
    return;
  }
  Launch& launch = *machine.launch;
  for (uint32_t i = 0; i < launch.buffer_count; ++i) {
    Buffer& buffer = launch.buffers[i];
    if (at >= buffer.begin && at + bytes <= buffer.end) {
      buffer_access(buffer, at, bytes, write, code);
      return;
    }
  }
  if (!write && in_library(at)) {
    return;
  }
  std::string nearest = "no buffer is near";
  int64_t distance = 1 << 12;
  for (uint32_t i = 0; i < launch.buffer_count; ++i) {
    const Buffer& buffer = launch.buffers[i];
    const int64_t beyond = at < buffer.begin ? buffer.begin - at : at + bytes - buffer.end;
    if (beyond < distance) {
      distance = beyond;
      nearest = std::to_string(beyond) + " bytes outside " + buffer.name;
    }
  }
  fault(std::string(write ? "a write" : "a read") + " out of bounds: " + nearest, 0, code);
}

}  // namespace

}  // namespace emu

#define EMU_ACCESS(size)                                             \
  extern "C" void __tsan_read##size(void* p) {                       \
    emu::access(p, size, false, true, __builtin_return_address(0));  \
  }                                                                  \
  extern "C" void __tsan_write##size(void* p) {                      \
    emu::access(p, size, true, true, __builtin_return_address(0));   \
  }                                                                  \
  extern "C" void __tsan_unaligned_read##size(void* p) {             \
    emu::access(p, size, false, false, __builtin_return_address(0)); \
  }                                                                  \
  extern "C" void __tsan_unaligned_write##size(void* p) {            \
    emu::access(p, size, true, false, __builtin_return_address(0));  \
  }
EMU_ACCESS(1)
EMU_ACCESS(2)
EMU_ACCESS(4)
EMU_ACCESS(8)
EMU_ACCESS(16)

extern "C" void __tsan_init() {}
extern "C" void __tsan_func_entry(void*) {}
extern "C" void __tsan_func_exit() {}

// The compiler turns copies of structs into these; kernels make them of buffers.
extern "C" void* __tsan_memcpy(void* to, const void* from, uint64_t bytes) {
  for (uint64_t i = 0; i < bytes; ++i) {
    emu::access(const_cast<uint8_t*>(static_cast<const uint8_t*>(from)) + i, 1, false, false,
                __builtin_return_address(0));
    emu::access(static_cast<uint8_t*>(to) + i, 1, true, false, __builtin_return_address(0));
  }
  return __builtin_memcpy(to, from, bytes);
}
extern "C" void* __tsan_memset(void* to, int value, uint64_t bytes) {
  for (uint64_t i = 0; i < bytes; ++i) {
    emu::access(static_cast<uint8_t*>(to) + i, 1, true, false, __builtin_return_address(0));
  }
  return __builtin_memset(to, value, bytes);
}
