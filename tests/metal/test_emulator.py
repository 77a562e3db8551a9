"""The emulator of Metal: small kernels with known results, and kernels that each break one rule."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from metal_emulator import Emulator, MetalCompileError, MetalFault

_HEADER = "#include <metal_stdlib>\n#include <metal_simdgroup_matrix>\nusing namespace metal;\n"
_ARGUMENTS = """device const float* x [[buffer(0)]], device float* y [[buffer(1)]],
    uint i [[thread_position_in_grid]], uint t [[thread_index_in_threadgroup]],
    uint lane [[thread_index_in_simdgroup]]"""


def run(
    body: str,
    x: np.ndarray | None = None,
    outputs: int = 64,
    header: str = "",
    arguments: str = _ARGUMENTS,
    **changed: Any,
) -> np.ndarray:
    """One launch of 64 threads of `kernel void f`, x to y."""
    x = np.arange(64, dtype=np.float32) if x is None else x
    y = np.zeros(outputs, dtype=np.float32)
    source = f"{_HEADER}{header}\nkernel void f({arguments}) {{\n{body}\n}}\n"

    def buffer(slot: int, name: str, array: np.ndarray, written: bool) -> tuple[Any, ...]:
        at = array.ctypes.data
        return slot, name, at, at, at + array.nbytes, written

    launch = {
        "library": "test",
        "source": source,
        "kernel": "f",
        "function_constants": [],
        "buffers": [buffer(0, "input 0", x, False), buffer(1, "output 0", y, True)],
        "bases": [x.ctypes.data, y.ctypes.data],
        "constants": [],
        "grid": (1, 1, 1),
        "group": (64, 1, 1),
        "threadgroup_bytes": 0,
    } | changed
    Emulator().execute([launch])
    return y


X = np.arange(64, dtype=np.float32)

RESULTS = {
    "a copy": ("y[i] = x[i];", X),
    "a swizzle": ("float4 v = float4(x[i], 1.0f, 2.0f, 3.0f); y[i] = v.wx.y + v.z;", X + 2),
    "half rounds": ("y[i] = float(half(x[i] + 2048.0f));", (X + 2048).astype(np.float16)),
    "bfloat rounds to even": ("y[i] = float(bfloat(257.0f)) + x[i];", X + 256),
    "a vector conversion": ("y[i] = float2(half2(float2(x[i], 0.1f))).x;", X),
    "min and max": ("y[i] = min(max(x[i], 3.0f), 9.0f);", np.clip(X, 3, 9)),
    "exp2 and log2": ("y[i] = log2(exp2(x[i]));", X),
    "ctz": ("y[i] = float(ctz(8u << (i % 4u)));", 3 + X % 4),
    "simd_shuffle_xor": ("y[i] = simd_shuffle_xor(x[i], ushort(5));", (X.astype(int) ^ 5)),
    "simd_or": ("y[i] = float(simd_or(lane == 3u ? 8u : 0u));", np.full(64, 8)),
    "a barrier": (
        "threadgroup float s[64]; s[t] = x[i]; threadgroup_barrier(mem_flags::mem_threadgroup);"
        "y[i] = s[63u - t];",
        X[::-1],
    ),
    "a simdgroup barrier": (
        "threadgroup float s[64]; s[t] = x[i]; simdgroup_barrier(mem_flags::mem_threadgroup);"
        "y[i] = s[t ^ 1u];",
        (X.astype(int) ^ 1),
    ),
}


@pytest.mark.parametrize("name", RESULTS)
def test_a_small_kernel_gives_the_known_result(name: str) -> None:
    body, expected = RESULTS[name]
    size = 256 if "threadgroup float" in body else 0
    np.testing.assert_array_equal(run(body, threadgroup_bytes=size), expected)


def test_a_matrix_product_uses_apples_lanes() -> None:
    """Row (q & 4) + lane / 2 % 4, column (q & 2) * 2 + lane % 2 * 2 + e, with q = lane / 4."""
    lane = np.arange(32)
    quad = lane // 4
    rows = (quad & 4) + lane // 2 % 4
    columns = (quad & 2) * 2 + lane % 2 * 2
    rng = np.random.default_rng(0)
    a, b = rng.integers(-8, 8, (2, 8, 8)).astype(np.float32)
    x = np.concatenate(
        [np.stack([m[rows, columns], m[rows, columns + 1]], 1).ravel() for m in (a, b)]
    )
    header = "#include <metal_simdgroup_matrix>\ntypedef simdgroup_matrix<float, 8, 8> M;"
    body = """M a, b, c;
    thread float2& p = reinterpret_cast<thread float2&>(a.thread_elements());
    thread float2& q = reinterpret_cast<thread float2&>(b.thread_elements());
    thread float2& r = reinterpret_cast<thread float2&>(c.thread_elements());
    p = float2(x[2u * lane], x[2u * lane + 1u]);
    q = float2(x[64u + 2u * lane], x[65u + 2u * lane]);
    r = float2(1.0f, 1.0f);
    simdgroup_multiply_accumulate(c, a, b, c);
    y[2u * i] = r.x;
    y[2u * i + 1u] = r.y;"""
    y = run(body, x, outputs=128, header=header).reshape(2, 32, 2)
    expected = a @ b + 1
    expected = np.stack([expected[rows, columns], expected[rows, columns + 1]], 1)
    np.testing.assert_array_equal(y, [expected, expected])


S = "threadgroup float s[64]; "
SYNC = "threadgroup_barrier(mem_flags::mem_threadgroup); "

FAULTS = {
    "a read beyond a buffer": ("y[i] = x[i + 1u];", "out of bounds: 4 bytes outside input 0"),
    "a read before a buffer": ("y[i] = x[int(i) - 1];", "out of bounds: 4 bytes outside input 0"),
    "a write beyond a buffer": (
        "y[i] = 1.0f; if (i == 63u) { y[64] = 1.0f; }",
        "a write out of bounds",
    ),
    "a read beyond threadgroup memory": (S + "s[t] = 1.0f; y[i] = s[t + 64u];", "beyond its end"),
    "a write to an input": (
        "const_cast<device float*>(x)[i] = 1.0f; y[i] = 0.0f;",
        "bound for reading",
    ),
    "a missing barrier": (
        S + "s[t] = x[i]; y[i] = s[63u - t];",
        "(before it is written|data race)",
    ),
    "a missing barrier after the use": (
        S + "s[t] = x[i]; " + SYNC + "y[i] = s[63u - t]; s[t] = 0.0f;",
        "data race",
    ),
    "a barrier that orders nothing": (
        S + "s[t] = x[i]; threadgroup_barrier(mem_flags::mem_none); y[i] = s[63u - t];",
        "(before it is written|data race)",
    ),
    "a simdgroup barrier across simdgroups": (
        S + "s[t] = x[i]; simdgroup_barrier(mem_flags::mem_threadgroup); y[i] = s[63u - t];",
        "(before it is written|data race)",
    ),
    "threadgroup memory that nothing wrote": (S + "y[i] = s[t];", "before it is written"),
    "an output that nothing wrote": ("if (i < 63u) { y[i] = 1.0f; }", "never writes byte 252"),
    "a read of an output": ("y[i] = y[i] + 1.0f;", "before anything wrote it"),
    "a barrier in a condition": (
        S + "if (t < 32u) { " + SYNC + "} y[i] = 0.0f;",
        "not all threads",
    ),
    "a barrier after a return": (
        "if (t == 5u) { return; } " + S + SYNC + "y[i] = 0.0f;",
        "not all threads reach",
    ),
    "a collective in a condition": (
        "float z = 0.0f; if (lane < 7u) { z = simd_shuffle_xor(x[i], ushort(1)); }"
        "simd_or(1u); y[i] = z;",
        "wait in different places",
    ),
    "an element that nothing has set": (
        "float z[2]; z[0] = x[i]; y[i] = z[i < 64u ? 1 : 0];",
        "or on variables that nothing has set",
    ),
    "a fragment that nothing has set": (
        "simdgroup_float8x8 m; simdgroup_multiply_accumulate(m, m, m, m);"
        "y[i] = m.thread_elements()[0];",
        "or on variables that nothing has set",
    ),
    "a lane that has ended": (
        "if (lane == 1u) { y[i] = 0.0f; return; } y[i] = simd_shuffle_xor(x[i], ushort(1));",
        "a lane that does not take part",
    ),
}


@pytest.mark.parametrize("name", FAULTS)
def test_a_kernel_that_breaks_a_rule_is_caught(name: str) -> None:
    body, sentence = FAULTS[name]
    with pytest.raises(MetalFault, match=sentence):
        run(body, threadgroup_bytes=256 if S in body else 0)


LAUNCHES = {
    "two threadgroups that write one byte": (
        {"grid": (2, 1, 1)},
        "y[t] = 1.0f;",
        "two threadgroups",
    ),
    "another size of threadgroup memory": (
        {"threadgroup_bytes": 16},
        "y[i] = 1.0f;",
        "the plan says 16",
    ),
    "half a simdgroup": ({"group": (48, 1, 1)}, "y[i] = 1.0f;", "whole simdgroups"),
    "one simdgroup": ({"group": (32, 1, 1)}, "y[i] = 1.0f;", "threadgroups of 32 threads"),
    "too many threads": ({"group": (2048, 1, 1)}, "y[i] = 1.0f;", "up to 1024"),
    "an empty grid": ({"grid": (0, 1, 1)}, "y[i] = 1.0f;", "must not be empty"),
    "an unknown kernel": ({"kernel": "g"}, "y[i] = 1.0f;", "no kernel g"),
    "constants that no buffer takes": ({"constants": [(2, b"1234")]}, "y[i] = 1.0f;", "are bound"),
    "function constants of nothing": (
        {"function_constants": [(0, True)]},
        "y[i] = 1.0f;",
        "function constants",
    ),
}


@pytest.mark.parametrize("name", LAUNCHES)
def test_a_launch_that_breaks_a_rule_is_caught(name: str) -> None:
    changed, body, sentence = LAUNCHES[name]
    with pytest.raises(MetalFault, match=sentence):
        run(body, **changed)


def test_results_that_depend_on_the_order_of_threads_are_caught() -> None:
    body = "device float* z = y; if (lane == 0u) { y[i / 32u] = float(t); }"
    np.testing.assert_array_equal(run(body, outputs=2), [0, 32])
    body = "threadgroup float s[1]; s[0] = x[i]; " + SYNC + "y[i] = s[0];"
    with pytest.raises(MetalFault, match=r"data race"):
        run(body, threadgroup_bytes=4)


REFUSED = {
    "double": "double z = 1.0; y[i] = z;",
    "the C++ library": "y[i] = std::sqrt(x[i]);",
    "new": "float* z = new float[2]; y[i] = z[0];",
    "goto": "goto end; end: y[i] = 0.0f;",
    "printf": 'printf("x"); y[i] = 0.0f;',
    "a byte that is not ASCII": "y[i] = 0.0f; // \u00e9",
    "device memory as constant": "constant float* z = x; y[i] = z[i];",
    "threadgroup memory as device": S + "device float* z = s; y[i] = z[i];",
    "a function that is not there": "y[i] = quad_sum(x[i]);",
    "max of int and uint": "y[i] = float(max(int(i), i));",
    "an unset variable": "float z; y[i] = z;",
    "an unknown attribute": "y[i] = 0.0f; [[unknown]] float z = 0.0f;",
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_metal_does_not_take_does_not_compile(name: str) -> None:
    with pytest.raises(MetalCompileError):
        run(REFUSED[name])


def test_counts_are_the_bytes_that_a_kernel_moves() -> None:
    x, y = np.zeros(64, np.float32), np.zeros(64, np.float32)
    emulator = Emulator()
    source = f"{_HEADER}kernel void f({_ARGUMENTS}) {{ y[i] = x[i] + x[0]; }}"
    buffers = [
        (0, "input 0", x.ctypes.data, x.ctypes.data, x.ctypes.data + 256, False),
        (1, "output 0", y.ctypes.data, y.ctypes.data, y.ctypes.data + 256, True),
    ]
    launch = {"source": source, "kernel": "f", "function_constants": [], "buffers": buffers}
    launch |= {"bases": [x.ctypes.data, y.ctypes.data], "constants": [], "threadgroup_bytes": 0}
    emulator.execute([launch | {"grid": (1, 1, 1), "group": (64, 1, 1)}])
    assert emulator.counts["f"].read["input 0"] == 512
    assert emulator.counts["f"].written["output 0"] == 256
