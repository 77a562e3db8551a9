"""What the emulated Metal language computes, against numpy: a kernel for each feature."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from metal_emulator import Emulator, MetalFault

_START = """#include <metal_stdlib>
#include <metal_simdgroup_matrix>
using namespace metal;
"""
THREADS = 64
INDEX = np.arange(THREADS)
LANE = INDEX % 32


def launch(
    body: str,
    x: np.ndarray,
    y: np.ndarray,
    before: str = "",
    after: str = "",
    **changed: Any,
) -> np.ndarray:
    """One threadgroup of 64 threads, from x to y."""
    names = {"float32": "float", "float16": "half", "int32": "int", "uint32": "uint"}
    names |= {"int64": "long", "uint8": "uchar", "int8": "char", "uint16": "ushort"}
    source = (
        f"{_START}{before}\nkernel void f(device const {names[x.dtype.name]}* x [[buffer(0)]],"
        f"device {names[y.dtype.name]}* y [[buffer(1)]], uint i [[thread_position_in_grid]],"
        f"uint lane [[thread_index_in_simdgroup]]{after}) {{\n{body}\n}}\n"
    )
    buffers = []
    for slot, (name, array) in enumerate((("input 0", x), ("output 0", y))):
        at = array.ctypes.data
        buffers.append((slot, name, at, at, at + array.nbytes, slot == 1))
    plan = {"library": "test", "source": source, "kernel": "f", "function_constants": []}
    plan |= {"buffers": buffers, "bases": [b[2] for b in buffers], "constants": []}
    plan |= {"grid": (1, 1, 1), "group": (THREADS, 1, 1), "threadgroup_bytes": 0} | changed
    Emulator(orders=(0, 1)).execute([plan])
    return y


X = np.linspace(-3, 5, THREADS, dtype=np.float32)
P = X - X.min() + np.float32(0.25)

FLOATS = {
    "constructors": ("float4(x[i], float2(1.0f, 2.0f), 3.0f).y + float3(x[i]).z", X + 1),
    "swizzles": ("float4(x[i], 1.0f, 2.0f, 3.0f).wzyx.zw.y", X),
    "colours": ("float4(x[i], 1.0f, 2.0f, 3.0f).b", np.full(THREADS, 2)),
    "a scalar and a vector": ("(2 * float2(x[i]) - 1.0f).y", 2 * X - 1),
    "comparisons are 0 or 1": ("float2(float2(x[i]) < float2(1.0f)).x", X < 1),
    "any and all": ("any(float2(x[i], 0.0f) > 1.0f) && !all(bool2(false, true))", X > 1),
    "logic of vectors": ("float2(bool2(true, false) || bool2(x[i] > 0.0f)).y", X > 0),
    "select": ("select(1.0f, 2.0f, x[i] > 0.0f)", np.where(X > 0, 2, 1)),
    "select of vectors": (
        "select(float2(1.0f), float2(2.0f), float2(x[i]) > 0.0f).y",
        np.where(X > 0, 2, 1),
    ),
    "clamp": ("clamp(x[i], -1.0f, 2.0f)", np.clip(X, -1, 2)),
    "min of vectors": ("min(float2(x[i]), 1.0f).y", np.minimum(X, 1)),
    "abs": ("abs(x[i])", np.abs(X)),
    "floor and ceil": ("floor(x[i]) + 10.0f * ceil(x[i])", np.floor(X) + 10 * np.ceil(X)),
    "fma": ("fma(x[i], 2.0f, 1.0f)", X * 2 + 1),
    "isfinite": ("isfinite(i == 0u ? INFINITY : i == 1u ? NAN : x[i])", INDEX > 1),
    "limits": ("numeric_limits<float>::max() == MAXFLOAT", np.ones(THREADS)),
    "the lowest half": ("float(numeric_limits<half>::lowest())", np.full(THREADS, -65504)),
    "as_type": ("as_type<float>(as_type<uint>(x[i]) ^ 0x80000000u)", -X),
    "popcount": ("popcount(i) + popcount(char(-1))", [bin(i).count("1") + 8 for i in INDEX]),
    "clz and ctz of 0": ("clz(0u) + ctz(ushort(0))", np.full(THREADS, 48)),
    "clz of short": ("clz(ushort(1u << (i % 16u)))", 15 - INDEX % 16),
    "literals of float": ("x[i] * 0.1f + 0x1p-3f", X * np.float32(0.1) + np.float32(0.125)),
    "half arithmetic rounds": (
        "half(x[i]) * 1.1h",
        (X.astype(np.float16) * np.float16(1.1)).astype(np.float32),
    ),
    "shorts wrap": ("short4(short(32767), short(0), short(0), short(0)).x + short(1)", 32768),
    "vectors of short wrap": ("(short2(short(32767)) + short2(short(1))).x", -32768),
    "dot": (
        "dot(float3(x[i], 1.0f, 2.0f), float3(2.0f, 3.0f, 4.0f))",
        2 * X + np.float32(3) + np.float32(8),
    ),
}

CLOSE = {
    "exp2": ("exp2(x[i])", np.exp2(X)),
    "exp of vectors": ("exp(float2(x[i])).y", np.exp(X)),
    "log2": ("log2(p)", np.log2(P)),
    "log": ("log(p)", np.log(P)),
    "sqrt": ("sqrt(p)", np.sqrt(P)),
    "rsqrt": ("rsqrt(p)", 1 / np.sqrt(P)),
    "precise": ("precise::exp(x[i]) + fast::exp(x[i])", 2 * np.exp(X)),
}


@pytest.mark.parametrize("name", FLOATS)
def test_an_expression_has_its_value(name: str) -> None:
    expression, expected = FLOATS[name]
    y = launch(f"y[i] = {expression};", X, np.zeros(THREADS, np.float32))
    np.testing.assert_array_equal(y, np.broadcast_to(expected, y.shape).astype(np.float32))


@pytest.mark.parametrize("name", CLOSE)
def test_a_function_is_close_to_its_value(name: str) -> None:
    expression, expected = CLOSE[name]
    body = f"const float p = x[i] + 3.25f; y[i] = {expression} + 0.0f * p;"
    np.testing.assert_allclose(launch(body, X, np.zeros(THREADS, np.float32)), expected, rtol=1e-5)


BITS = np.random.default_rng(0).integers(0, 1 << 32, THREADS, dtype=np.uint32)
SMALL = np.random.default_rng(1).integers(-9, 9, THREADS).astype(np.int32)


def _exclusive(x: np.ndarray) -> np.ndarray:
    return (np.cumsum(x.reshape(2, 32), axis=1) - x.reshape(2, 32)).ravel()


def _over_lanes(x: np.ndarray) -> np.ndarray:
    return np.repeat(x, 32)


GROUPS = SMALL.reshape(2, 32)
COLLECTIVES = {
    "simd_sum": ("simd_sum(x[i])", _over_lanes(GROUPS.sum(1))),
    "simd_max": ("simd_max(x[i])", _over_lanes(GROUPS.max(1))),
    "simd_min": ("simd_min(x[i])", _over_lanes(GROUPS.min(1))),
    "simd_and": ("simd_and(x[i] | 8)", _over_lanes(np.bitwise_and.reduce(GROUPS | 8, 1))),
    "simd_or": ("simd_or(x[i])", _over_lanes(np.bitwise_or.reduce(GROUPS, 1))),
    "simd_xor": ("simd_xor(x[i])", _over_lanes(np.bitwise_xor.reduce(GROUPS, 1))),
    "simd_any": ("simd_any(lane == 3u) && !simd_any(lane > 31u)", 1),
    "simd_all": ("simd_all(lane < 32u) && !simd_all(lane < 31u)", 1),
    "simd_ballot": ("int(uint(simd_vote::vote_t(simd_ballot(lane % 2u == 1u))) >> 1)", 0x55555555),
    "simd_shuffle": ("simd_shuffle(x[i], ushort(31u - lane))", GROUPS[:, ::-1].ravel()),
    "simd_shuffle_xor": ("simd_shuffle_xor(x[i], ushort(9))", SMALL[INDEX ^ 9]),
    "simd_shuffle_up": (
        "simd_shuffle_up(x[i], ushort(2))",
        SMALL[np.where(LANE < 2, INDEX, INDEX - 2)],
    ),
    "simd_shuffle_down": (
        "simd_shuffle_down(x[i], ushort(3))",
        SMALL[np.where(LANE > 28, INDEX, INDEX + 3)],
    ),
    "simd_broadcast": ("simd_broadcast(x[i], ushort(7))", _over_lanes(GROUPS[:, 7])),
    "inclusive sums": ("simd_prefix_inclusive_sum(x[i])", _exclusive(SMALL) + SMALL),
    "exclusive sums": ("simd_prefix_exclusive_sum(x[i])", _exclusive(SMALL)),
    "simd_is_first": ("int(simd_is_first())", LANE == 0),
    "shuffles of vectors": ("simd_shuffle_xor(int2(1, x[i]), ushort(9)).y", SMALL[INDEX ^ 9]),
    "sums of vectors": ("simd_sum(int2(1, x[i])).y", _over_lanes(GROUPS.sum(1))),
}


@pytest.mark.parametrize("name", COLLECTIVES)
def test_a_collective_gives_every_lane_its_value(name: str) -> None:
    expression, expected = COLLECTIVES[name]
    y = launch(f"y[i] = {expression};", SMALL, np.zeros(THREADS, np.int32))
    np.testing.assert_array_equal(y, np.broadcast_to(expected, y.shape))


def test_lanes_that_do_not_come_add_nothing() -> None:
    body = "y[i] = 0; if (lane < 5u) { y[i] = simd_sum(1); }"
    y = launch(body, SMALL, np.zeros(THREADS, np.int32))
    np.testing.assert_array_equal(y, np.where(LANE < 5, 5, 0))


def test_bfloat_rounds_to_nearest_even() -> None:
    x = BITS.view(np.float32)[np.isfinite(BITS.view(np.float32))]
    x = np.resize(np.concatenate([x, np.float32([np.inf, -0.0])]), THREADS)
    bits = x.view(np.uint32).astype(np.uint64)
    expected = ((bits + 0x7FFF + (bits >> 16 & 1)) >> 16).astype(np.uint16)
    y = launch("y[i] = as_type<ushort>(bfloat(x[i]));", x, np.zeros(THREADS, np.uint16))
    np.testing.assert_array_equal(y, expected)


def test_vectors_in_memory_are_read_and_written_whole() -> None:
    x = np.arange(4 * THREADS, dtype=np.int64)
    body = """device const long4* from = reinterpret_cast<device const long4*>(x);
    long4 v = from[i];
    v.xw = v.wx;
    v[1] += 5l;
    reinterpret_cast<device long4*>(y)[i] = v;"""
    y = launch(body, x, np.zeros_like(x)).reshape(-1, 4)
    np.testing.assert_array_equal(y, x.reshape(-1, 4)[:, [3, 1, 2, 0]] + np.int64([0, 5, 0, 0]))


PROGRAM = """
#define TWICE(a) ((a) * 2)
namespace parts { enum Kind { first, second = 4 }; }
constant constexpr int WIDTH = TWICE(16);
constant float TABLE[3] = {1.0f, 10.0f, 100.0f};
static_assert(WIDTH == 32, "of a simdgroup");
struct Pair { float a; int b; float sum() const thread { return a + float(b); } };
template <typename T, int N> struct Many { T v[N]; };
template <typename T, int N> inline T total(thread const Many<T, N>& m) {
  T sum = T(0);
#pragma unroll
  for (int k = 0; k < N; ++k) { sum += m.v[k]; }
  return sum;
}
inline float place(device const float* p) { return p[0]; }
inline float place(threadgroup const float* p) { return p[0] + 1000.0f; }
inline float place(constant float* p) { return p[2]; }
"""


def test_a_program_has_templates_namespaces_tables_and_overloads_on_memory() -> None:
    body = """threadgroup float s[WIDTH * 2];
    s[i] = x[i];
    Many<float, 3> m;
    for (int k = 0; k < 3; ++k) { m.v[k] = TABLE[k]; }
    Pair p;
    p.a = total(m);
    p.b = parts::second;
    y[i] = p.sum() + place(x + i) + place(s + i) + place(TABLE);"""
    y = launch(body, X, np.zeros(THREADS, np.float32), PROGRAM, threadgroup_bytes=256)
    np.testing.assert_allclose(y, 111 + 4 + X + X + 1000 + 100, rtol=1e-6)


def test_function_constants_are_given_at_launch() -> None:
    before = """constant bool negative [[function_constant(0)]];
    constant int shift [[function_constant(3)]];
    constant float factor [[function_constant(1)]];
    constant int twice = shift * 2;"""
    body = "y[i] = (negative ? -1.0f : 1.0f) * factor * x[i] + float(twice);"
    for negative, shift, factor in ((True, 4, 2.0), (False, -1, 0.5)):
        constants = [(0, negative), (3, shift), (1, factor)]
        y = launch(body, X, np.zeros_like(X), before, function_constants=constants)
        sign = np.float32(-1 if negative else 1)
        np.testing.assert_array_equal(y, sign * np.float32(factor) * X + 2 * shift)


def test_constants_and_builtins_reach_the_kernel() -> None:
    before = "struct Params { int add; float scale; long many; };"
    after = """, constant Params& p [[buffer(2)]], uint3 size [[threads_per_threadgroup]],
    ushort2 at [[thread_position_in_threadgroup]], uint t [[thread_index_in_threadgroup]],
    uint g [[simdgroup_index_in_threadgroup]], uint gs [[simdgroups_per_threadgroup]]"""
    body = """Params own = p;
    y[i] = float(own.add) + p.scale * float(p.many) + float(size.y) + 100.0f * float(t)
        + 0.0f * (x[i] + float(g + gs) + float(at.x));"""
    data = np.int32(3).tobytes() + np.float32(0.5).tobytes() + np.int64(8).tobytes()
    y = launch(body, X, np.zeros_like(X), before, after, constants=[(2, data)])
    np.testing.assert_array_equal(y, 3 + 4 + 1 + 100 * INDEX)


def _apple_layout(matrix: np.ndarray) -> np.ndarray:
    lane = np.arange(32)
    quad = lane // 4
    row = (quad & 4) + lane // 2 % 4
    column = (quad & 2) * 2 + lane % 2 * 2
    return np.stack([matrix[row, column], matrix[row, column + 1]], axis=1)


@pytest.mark.parametrize("element", ["float", "half", "bfloat"])
@pytest.mark.parametrize("transposed", [False, True])
def test_matrices_are_loaded_multiplied_and_stored(element: str, transposed: bool) -> None:
    rng = np.random.default_rng(2)
    a, b = rng.integers(-4, 4, (2, 8, 8))
    x = np.stack([a, b]).astype(np.float32)
    body = f"""threadgroup {element} s[128];
    for (int k = 0; k < 2; ++k) {{ s[int(i) * 2 + k] = {element}(x[int(i) * 2 + k]); }}
    threadgroup_barrier(mem_flags::mem_threadgroup);
    simdgroup_matrix<{element}, 8, 8> a, b;
    simdgroup_matrix<float, 8, 8> c = make_filled_simdgroup_matrix<float, 8, 8>(1.0f);
    simdgroup_load(a, s, 8, ulong2(0, 0), {str(transposed).lower()});
    simdgroup_load(b, s + 64, 8);
    simdgroup_multiply_accumulate(c, a, b, c);
    if (i < 32u) {{
      simdgroup_store(c, y, 8);
    }} else {{
      y[64 + lane * 2] = float(a.thread_elements()[0]);
      y[65 + lane * 2] = float(a.thread_elements()[1]);
    }}"""
    size = 512 if element == "float" else 256
    y = launch(body, x.ravel(), np.zeros(128, np.float32), threadgroup_bytes=size)
    left = a.T if transposed else a
    np.testing.assert_array_equal(y[:64].reshape(8, 8), left @ b + 1)
    np.testing.assert_array_equal(y[64:].reshape(32, 2), _apple_layout(left))


FAULTS = {
    "an index beyond an array": "float a[2] = {1.0f, 2.0f}; y[i] = a[i];",
    "an index before an array": "float a[2] = {1.0f, 2.0f}; y[i] = a[int(i) - 1];",
    "an element that a vector lacks": "float2 a = float2(1.0f); y[i] = a[i];",
    "a division by zero": "y[i] = float(5 / int(i));",
}


@pytest.mark.parametrize("name", FAULTS)
def test_what_only_the_compilers_checks_see_is_a_fault(name: str) -> None:
    sentence = "beyond its end|no such element|divided by zero"
    with pytest.raises(MetalFault, match=sentence):
        launch(FAULTS[name], X, np.zeros_like(X))
