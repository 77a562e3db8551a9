#pragma once

#include <nanobind/nanobind.h>

// Adds emulate_metal.
void bind_emulation(nanobind::module_& m);
