#pragma once

#include <nanobind/nanobind.h>

// Adds what Python asks of the Metal side.
void bind_metal(nanobind::module_& m);
