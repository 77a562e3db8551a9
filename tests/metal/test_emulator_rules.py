"""Rules of Metal's that a C++ compiler would let pass, and what they must not refuse."""

from __future__ import annotations

import pytest
from metal_emulator import MetalCompileError
from metal_emulator.compiler import compile_metal

_START = """#include <metal_stdlib>
#include <metal_simdgroup_matrix>
using namespace metal;
"""


def compile_body(body: str, before: str = "") -> None:
    compile_metal(
        f"{_START}{before}\nkernel void f(device const float* x [[buffer(0)]],"
        "device float* y [[buffer(1)]], constant int& n [[buffer(2)]],"
        f"uint i [[thread_position_in_grid]]) {{\n{body}\n}}\n"
    )


REFUSED_BODIES = {
    "double": ("double z = 1.0; y[i] = z;", "no `double`"),
    "long long": ("long long z = 1; y[i] = z;", "no `long long`"),
    "long double literals": ("y[i] = 1.0L;", "long double"),
    "the C++ library": ("y[i] = std::sqrt(x[i]);", "no `std`"),
    "new": ("thread float* z = new float[2]; y[i] = z[0];", "no `new`"),
    "goto": ("goto end; end: y[i] = 0.0f;", "no `goto`"),
    "exceptions": ("try { y[i] = 0.0f; } catch (...) {}", "no `try`"),
    "typeid": ("y[i] = typeid(int) == typeid(float);", "no `typeid`"),
    "printf": ('printf("x");', "no `printf`"),
    "assembly": ('asm("nop");', "no `asm`"),
    "a lambda": ("auto g = [](float a) { return a; }; y[i] = g(x[i]);", "no lambdas"),
    "a pointer without a space": ("const float* z = x; y[i] = z[0];", "needs an address space"),
    "a reference without a space": ("float a = x[i]; float& z = a; y[i] = z;", "address space"),
    "a cast without a space": ("y[i] = *reinterpret_cast<float*>(&y[0]);", "address space"),
    "device as constant": ("constant float* z = x; y[i] = z[0];", "cannot initialize"),
    "constant as device": ("device const int* z = &n; y[i] = z[0];", "cannot initialize"),
    "thread as device": ("float a = 1.0f; device float* z = &a; y[i] = z[0];", "cannot initialize"),
    "a write to const": ("device const float* z = x; z[i] = 1.0f;", "read-only"),
    "a write to constant memory": ("n = 1;", "cannot assign"),
    "max of int and uint": ("y[i] = float(max(int(i), i));", "ambiguous"),
    "max of float and int": ("y[i] = max(x[i], 0);", "ambiguous"),
    "exp2 of an int": ("y[i] = exp2(n);", "ambiguous"),
    "a vector of another type": ("int2 a = int2(1); float2 z = a; y[i] = z.x;", "conversion"),
    "too few elements": ("float4 z = float4(1.0f, 2.0f); y[i] = z.x;", "no matching constructor"),
    "too many elements": (
        "float2 z = float2(float2(1.0f), 2.0f); y[i] = z.x;",
        "no matching constructor",
    ),
    "a component that is not there": ("float2 z = float2(1.0f); y[i] = z.z;", "no member"),
    "a write to a component twice": ("float2 z = float2(1.0f); z.xx = z; y[i] = z.x;", "setter"),
    "a float vector by int vector": ("y[i] = (float2(1.0f) * int2(2)).x;", "invalid operands"),
    "simd_sum of bool": ("y[i] = simd_sum(x[i] > 0.0f) ? 1.0f : 0.0f;", "simdgroup functions"),
    "simd_sum of long": ("y[i] = float(simd_sum(long(i)));", "simdgroup functions take"),
    "another size of matrix": ("simdgroup_matrix<float, 4, 4> m; y[i] = 0.0f;", "8 x 8"),
    "an unset variable": ("float z; y[i] = z;", "uninitialized"),
    "one that is set at times": ("float z; if (n > 1) { z = 1.0f; } y[i] = z;", "uninitialized"),
    "an unknown function": ("y[i] = quad_sum(x[i]);", "quad_sum"),
    "an unknown attribute": ("[[unknown]] float z = 0.0f; y[i] = z;", r"\[\[unknown\]\]"),
    "a threadgroup variable in a block": ("if (n > 1) { threadgroup float s[4]; }", "outermost"),
    "a threadgroup variable with a value": ("threadgroup float s = 1.0f;", "initialised"),
    "the emulator's own names": ("y[i] = emu_builtin(0, 0);", "no `emu_builtin`"),
    "a fence": (
        "atomic_thread_fence(mem_flags::mem_device, memory_order_seq_cst);",
        "not know `atomic",
    ),
    "an atomic": ("device atomic_int* z = (device atomic_int*)y;", "does not know `atomic"),
    "as_type of another size": ("y[i] = as_type<float>(half(1.0h));", "one size"),
}

REFUSED_PROGRAMS = {
    "virtual": ("struct S { virtual int g() { return 1; } };", "no `virtual`"),
    "a variable outside constant memory": ("int z = 1;", "constant memory"),
    "a static variable": ("static float z = 1.0f;", "constant memory"),
    "a parameter without a space": ("inline float g(const float* a) { return a[0]; }", "space"),
    "a reference parameter": ("inline void g(float& a) { a = 1.0f; }", "needs an address space"),
    "a parameter's vector type": ("inline void g(vec<float, 4>* a) {}", "needs an address space"),
    "a template's pointer": (
        "template <typename T> T g(const T* a) { return *a; }",
        "needs an address space",
    ),
    "threadgroup memory in a function": ("inline void g() { threadgroup float s[4]; }", "kernel"),
    "extern": ("extern int z;", "no `extern`"),
    "an explicit instantiation": (
        "template <typename T> T g(T a) { return a; } template int g(int);",
        "no explicit instantiation",
    ),
    "an unknown pragma": ("#pragma omp parallel", "does not know #pragma omp"),
    "a C++ header": ("#include <vector>", "vector"),
    "a file of its own": ('#include "other.h"', "self-contained"),
    "OpenCL's words": ("inline int g(__global int* a) { return *a; }", "no `__global`"),
    "a method of device objects": (
        "struct S { float a; float g() const { return a; } };\n"
        "inline float h(device const S* s) { return s->g(); }",
        "'this' argument",
    ),
    "two constants of one index": (
        "constant int a [[function_constant(0)]]; constant int b [[function_constant(0)]];",
        "function constant 0",
    ),
    "a function constant's write": (
        "constant int a [[function_constant(0)]]; inline void g() { a = 1; }",
        "assignable",
    ),
}

RECURSIVE = {
    "itself": "inline int g(int a) { return a < 1 ? 0 : g(a - 1); }",
    "another that calls it": "int h(int a); inline int g(int a) { return h(a); } "
    "int h(int a) { return g(a); }",
    "its own template": "template <typename T> T g(T a) { return a < 1 ? a : g<T>(a - 1); }",
    "itself at the end": "inline int g(int a) { if (a > 9) { return a; } return g(a + 1); }",
}

ACCEPTED = {
    "products that look like pointers": "const int a = n; y[i] = float(a * n * a);",
    "comparisons that look like templates": "y[i] = i < 3u && n > 1 ? 1.0f : 0.0f;",
    "words in strings of digits": "y[i] = 1e-3f + 0x1p-3f + 1.5h + 1.5bf;",
    "conditionals in conditionals": "float2 a = float2(1.0f); a = n > 1 ? a : n > 0 ? a.yx "
    ": float2(0.0f); y[i] = a.x;",
    "loops with attributes": "[[clang::loop(unroll, full)]] for (int k = 0; k < 2; ++k) "
    "{ y[i] = float(k); }",
    "pragmas of loops": '_Pragma("clang loop unroll(full)")\nfor (int k = 0; k < 2; ++k) '
    "{ y[i] = float(k); }",
    "pointers to pointers": "device const float* a = x; device const float* thread* b = &a; "
    "y[i] = **b;",
}


@pytest.mark.parametrize("name", REFUSED_BODIES)
def test_what_metal_forbids_in_a_function_does_not_compile(name: str) -> None:
    body, sentence = REFUSED_BODIES[name]
    with pytest.raises(MetalCompileError, match=sentence):
        compile_body(body)


@pytest.mark.parametrize("name", REFUSED_PROGRAMS)
def test_what_metal_forbids_in_a_program_does_not_compile(name: str) -> None:
    before, sentence = REFUSED_PROGRAMS[name]
    with pytest.raises(MetalCompileError, match=sentence):
        compile_body("y[i] = 0.0f;", before)


@pytest.mark.parametrize("name", RECURSIVE)
def test_a_function_that_calls_itself_does_not_compile(name: str) -> None:
    with pytest.raises(MetalCompileError, match=r"`[gh]` calls itself"):
        compile_body("y[i] = float(g(n));", RECURSIVE[name])


@pytest.mark.parametrize("name", ACCEPTED)
def test_what_metal_takes_compiles(name: str) -> None:
    compile_body(ACCEPTED[name])


SIGNATURES = {
    "a parameter without attribute": ("device float* y", "needs an attribute"),
    "an unknown builtin": ("uint i [[thread_position_in_moon]]", "no builtin fits"),
    "a builtin of another type": ("float i [[thread_position_in_grid]]", "no builtin fits"),
    "a scalar builtin as vector": ("uint3 i [[thread_index_in_simdgroup]]", "no builtin fits"),
    "a buffer of thread memory": ("thread float* y [[buffer(0)]]", "device or constant"),
    "a buffer beyond the last": ("device float* y [[buffer(31)]]", "0 to 30"),
    "a buffer twice": (
        "device float* y [[buffer(0)]], device float* z [[buffer(0)]]",
        "given twice",
    ),
}


@pytest.mark.parametrize("name", SIGNATURES)
def test_a_signature_that_metal_refuses_does_not_compile(name: str) -> None:
    parameters, sentence = SIGNATURES[name]
    with pytest.raises(MetalCompileError, match=sentence):
        compile_metal(f"{_START}kernel void f({parameters}) {{}}\n")


def test_messages_name_the_line_of_the_metal_source() -> None:
    with pytest.raises(MetalCompileError, match=r"line 5:.*no_such"):
        compile_metal(f"{_START}kernel void f(device int* y [[buffer(0)]]) {{\n no_such = 1; }}")
    with pytest.raises(MetalCompileError, match=r"line 5:.*undeclared identifier 'no_such'"):
        compile_metal(f"{_START}kernel void f(device int* y [[buffer(0)]]) {{\n y[0] = no_such; }}")


@pytest.mark.parametrize("where", ["// caf\u00e9", "/* \u2014 */"])
def test_sources_are_ascii_even_in_comments(where: str) -> None:
    with pytest.raises(MetalCompileError, match="line 4: Metal sources are ASCII"):
        compile_metal(f"{_START}{where}\nkernel void f() {{}}\n")


def test_matrices_need_their_header() -> None:
    source = "#include <metal_stdlib>\nusing namespace metal;\n"
    with pytest.raises(MetalCompileError, match="metal_simdgroup_matrix"):
        compile_metal(source + "kernel void f() { simdgroup_matrix<float, 8, 8> m; }")


def test_overloads_that_call_each_other_are_no_recursion() -> None:
    compile_body(
        "y[i] = g(x, 1);",
        "inline float g(float a) { return a; }\n"
        "inline float g(device const float* a, int k) { return g(a[k]); }",
    )


def test_metal_version_is_defined() -> None:
    compile_metal("#if __METAL_VERSION__ < 310\n#error old\n#endif\nkernel void f() {}\n")
