"""Rules of Metal's that a C++ compiler would let pass, and what they must not refuse."""

from __future__ import annotations

import pytest
from metal_emulator import MetalCompileError
from metal_emulator.compiler import compile_metal

_START = """#include <metal_stdlib>
#include <metal_simdgroup_matrix>
using namespace metal;
"""
_DECLARED = """constant constexpr float FACTOR = 2.0f;
constant constexpr long SIZE = 12l;
constant float TABLE[2] = {1.0f, 2.0f};
struct Pair {
  float a;
  Pair() thread : a(0.0f) {}
  Pair(float b) thread : a(b) {}
  float operator()(float b) const thread { return a * b; }
};
inline long third(long a, long b) { return a / b; }
inline long twice(long a, long b) { return third(a, b) * 2l; }
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
    "a literal without a suffix": ("y[i] = x[i] * 1.0;", "`1.0` needs a suffix"),
    "a power of ten without one": ("y[i] = x[i] * 1e-3;", "`1e-3` needs a suffix"),
    "a power of two without one": ("y[i] = x[i] * 0x1p3;", "`0x1p3` needs a suffix"),
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
    "a deduced reference without a space": ("auto& z = y[i]; z = 0.0f;", "address space"),
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
    "a choice of device and table": ("y[i] = n > 1 ? x[i] : TABLE[0];", "different address"),
    "a choice of device and constant": ("y[i] = n > 1 ? x[i] : FACTOR;", "different address"),
    "a choice of argument and variable": ("int z = 1; y[i] = z > 1 ? n : z;", "different address"),
    "a choice of pointed to and variable": (
        "float z = 1.0f; y[i] = n > 1 ? *x : z;",
        "different address",
    ),
    "a choice of members": (
        "Pair p; p.a = 1.0f; y[i] = n > 1 ? reinterpret_cast<device const Pair*>(x)->a : p.a;",
        "different address",
    ),
    "a choice within a choice": (
        "float z = 1.0f; y[i] = n > 1 ? 0.0f : n > 0 ? x[i] : z;",
        "different address",
    ),
    "a choice within an argument": (
        "float z = 1.0f; y[i] = max(n > 0 ? z : x[i], 0.0f);",
        "different address",
    ),
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
    "a member that points": ("struct S { float* a; };", "needs an address space"),
    "a member of a template": ("template <typename T> struct S { T& a; };", "an address space"),
    "a method's result": ("struct S { float a; float& g() thread { return a; } };", "space"),
    "a typedef": ("typedef float* P;", "needs an address space"),
    "an alias": ("using P = float*;", "needs an address space"),
    "an alias template": ("template <class T> using P = T*;", "needs an address space"),
    "a pointer to a typedef": ("typedef float F; inline void g(F* a) {}", "an address space"),
    "a pointer to a dependent type": (
        "template <class T> struct S { typedef T type; };"
        "template <class T> inline void g(typename S<T>::type* a) {}",
        "needs an address space",
    ),
    "a template's argument": (
        "template <class T> struct S { int a; }; struct R { S<float*> s; };",
        "needs an address space",
    ),
    "a reference to an array": ("inline void g(float (&a)[4]) {}", "needs an address space"),
    "a pointer to an array": ("typedef float (*P)[4];", "needs an address space"),
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
    "a method without a space": (
        "struct S { float a; float g() const { return a; } };",
        "`g` is a member function: write the address space",
    ),
    "a method that is defined elsewhere": ("struct S { float g(); };", "is a member function"),
    "a method of a template": (
        "template <class T> struct S { T a; template <class U> T g(U b) { return a * b; } };",
        "is a member function",
    ),
    "a constructor without a space": (
        "struct S { float a; S(float b) : a(b) {} };",
        "`S` is a member function",
    ),
    "an operator without a space": (
        "struct S { float a; float operator()(float b) const { return a * b; } };",
        r"`operator\(\)` is a member function",
    ),
    "a method of device objects": (
        "struct S { float a; float g() const thread { return a; } };\n"
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

# Of 64-bit integers in loops, by what is no constant.
DIVISIONS = {
    "in a for": "for (long k = 1l; k < n; ++k) { s += 100l / k; }",
    "in a while": "while (s > 0l) { s -= s % n; }",
    "in a do": "do { s /= n; } while (s > 1l);",
    "in a loop's condition": "for (int k = 0; k < s / n; ++k) { s -= 1l; }",
    "in a loop within one": "for (int k = 0; k < n; ++k) { while (s > k) { s /= n; } }",
    "of unsigned": "ulong z = ulong(s); while (z > 9ul) { z = z % i; } s = long(z);",
    "of an int by a long": "for (int k = 0; k < n; ++k) { s = k / s; }",
    "of vectors": "long2 z = long2(s); for (int k = 0; k < n; ++k) { z = z / long2(s); } s = z.x;",
    "in a function": "for (int k = 0; k < n; ++k) { s += third(s, long(n)); }",
    "in a function of a function": "for (int k = 0; k < n; ++k) { s += twice(s, long(n)); }",
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
    "choices of values": "y[i] = n > 1 ? x[i] + 0.0f : n > 0 ? FACTOR : n < -1 ? x[i] : 1.0f;",
    "choices in one space": "y[i] = n > 1 || n < 0 && i > 3u ? x[i] : y[i]; y[i] = n > 1 ? TABLE[0]"
    " : FACTOR;",
    "choices of pointers": "device const float* z = n > 1 ? x : x + 1; y[i] = (n > 2 ? z : 0)[0];",
    "choices of bfloat": "bfloat z = 1.0bf; z = n > 1 ? z : 2.0bf; y[i] = float(z);",
    "digits that look like floats": "y[i] = float(0xeu + 0x1Eu + 0xfefu);",
    "references to arrays": "float z[2] = {1.0f, 2.0f}; thread float (&w)[2] = z; y[i] = w[0];",
    "products of casts": "y[i] = float(*x) * float(*y);",
    "objects in thread memory": "Pair z(x[i]); y[i] = z(2.0f);",
    "64-bit divisions before loops": "long z = third(long(i), long(n)) + long(i) % n;"
    "for (int k = 0; k < n; ++k) { z += k; } y[i] = float(z / n);",
    "64-bit divisions by constants": "const int d = 3; long z = 9l; for (int k = 0; k < n; ++k) "
    "{ z += z / 3 + z % d + z / int(sizeof(float)) + z / SIZE; } y[i] = float(z);",
    "32-bit divisions in loops": "int z = 9; for (int k = 1; k < n; ++k) "
    "{ z += z / k + int(i % uint(n)); } y[i] = float(z);",
    "pointers to pointers": "device const float* a = x; device const float* thread* b = &a; "
    "y[i] = **b;",
}


@pytest.mark.parametrize("name", REFUSED_BODIES)
def test_what_metal_forbids_in_a_function_does_not_compile(name: str) -> None:
    body, sentence = REFUSED_BODIES[name]
    with pytest.raises(MetalCompileError, match=sentence):
        compile_body(body, _DECLARED)


@pytest.mark.parametrize("name", REFUSED_PROGRAMS)
def test_what_metal_forbids_in_a_program_does_not_compile(name: str) -> None:
    before, sentence = REFUSED_PROGRAMS[name]
    with pytest.raises(MetalCompileError, match=sentence):
        compile_body("y[i] = 0.0f;", before)


@pytest.mark.parametrize("name", RECURSIVE)
def test_a_function_that_calls_itself_does_not_compile(name: str) -> None:
    with pytest.raises(MetalCompileError, match=r"`[gh]` calls itself"):
        compile_body("y[i] = float(g(n));", RECURSIVE[name])


@pytest.mark.parametrize("name", DIVISIONS)
def test_a_64_bit_division_in_a_loop_does_not_compile(name: str) -> None:
    with pytest.raises(MetalCompileError, match="a 64-bit division or remainder in a loop"):
        compile_body(f"long s = 9l + i; {DIVISIONS[name]} y[i] = float(s);", _DECLARED)


def test_a_division_in_a_loop_is_named_by_its_line_or_by_the_call_of_the_library() -> None:
    loop = "long2 s = long2(9l);\nfor (int k = 0; k < n; ++k) {\ns = %s; }\ny[i] = float(s.x);"
    for division in ("s / long2(s.y)", "long2(s.x % n)"):
        with pytest.raises(MetalCompileError, match="line 8: a 64-bit division"):
            compile_body(loop % division)


@pytest.mark.parametrize("name", ACCEPTED)
def test_what_metal_takes_compiles(name: str) -> None:
    compile_body(ACCEPTED[name], _DECLARED)


@pytest.mark.parametrize("threads", ["32", "WIDTH", "WIDTH / 2 * 2", "ROWS * 4"])
def test_a_kernel_for_one_simdgroup_does_not_compile(threads: str) -> None:
    before = "constant constexpr int WIDTH = 32; enum { ROWS = 8 };\n"
    attribute = f"[[kernel, max_total_threads_per_threadgroup({threads})]]"
    with pytest.raises(MetalCompileError, match="f: kernels for threadgroups of 32 threads"):
        compile_metal(f"{_START}{before}{attribute} void f() {{}}\n")
    compile_metal(f"{_START}{before}{attribute.replace(threads, threads + '* 2')} void f() {{}}\n")


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
