// What Metal's standard library declares, in C++ for OpenCL: every translated
// kernel includes it. A name that is missing here fails to compile.
#pragma once

#include "base.h"
#include "checks.h"
#include "vector.h"
// The functions are written on vectors.
#include "math.h"
#include "simdgroup.h"
// The matrices are written on the simdgroup's collectives.
#include "matrix.h"
