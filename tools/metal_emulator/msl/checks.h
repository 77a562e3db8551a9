// What the compiler's own checks call: indices of arrays in thread memory, and
// division by zero.
#pragma once

#include "base.h"

struct emu_place {
  const char* file;
  uint line, column;
};

extern "C" EMU_QUIET __attribute__((used)) inline void __ubsan_handle_out_of_bounds_abort(
    const emu_place* place, ulong index) {
  emu_fault("an array is indexed before its begin or beyond its end", place->line);
}
extern "C" EMU_QUIET __attribute__((used)) inline void __ubsan_handle_divrem_overflow_abort(
    const emu_place* place, ulong left, ulong right) {
  emu_fault("an integer is divided by zero", place->line);
}
