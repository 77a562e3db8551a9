"""Faults to plant in the kernel of rotary, for test_mutations.py."""

from __future__ import annotations

from rotary_problem import RotaryProblem

TURN = "rotary_turn"

# Some of them must come out wrong where a fault is planted.
PROBLEMS = (
    RotaryProblem((2, 3, 77, 16), layouts=("permuted",) * 3),
    RotaryProblem((2, 2, 60, 24), dtype="float16"),
    RotaryProblem((2, 5, 45, 18), layouts=("last_transposed", "contiguous", "last_reversed")),
    RotaryProblem((1, 2, 33, 136)),
)

# kernel, what stands there, what stands there instead; every occurrence in the kernel's source.
SOURCES = (
    (TURN, "(half_dim + uint(kTurnPairs) - 1u) / uint(kTurnPairs)", "half_dim / uint(kTurnPairs)"),
    (TURN, "at = index % quads", "at = index / quads % quads"),
    (TURN, "l = row / uint(p.H), h = row % uint(p.H)", "l = row % uint(p.L), h = row / uint(p.L)"),
    (TURN, "if (l >= uint(p.L)) {", "if (l > uint(p.L)) {"),
    (TURN, "min(half_dim - at, uint(kTurnPairs))", "min(half_dim - at, 3u)"),
    (TURN, "min(half_dim - at, uint(kTurnPairs))", "uint(kTurnPairs)"),
    (TURN, "angles + (b * p.L + int64_t(l)) * p.D", "angles + int64_t(l) * p.D"),
    (TURN, "p.sign * load_angles", "load_angles"),
    (TURN, "load_angles(turn + half_dim, count)", "load_angles(turn, count)"),
    (TURN, "from + int64_t(half_dim) * p.x_d", "from + int64_t(half_dim)"),
    (TURN, "first * cosine - second * sine", "first * cosine + second * sine"),
    (TURN, "second * cosine + first * sine", "second * cosine - first * sine"),
    (TURN, "store_four(to + half_dim,", "store_four(to,"),
    (TURN, "from[int64_t(i) * stride]", "from[i]"),
    (TURN, "to[i] = ELEMENT(x[i]);", "to[i] = ELEMENT(x[0]);"),
    (TURN, "x[i] = from[i];", "x[i] = from[0];"),
)

# kernel, what stands there, what stands instead, along which axis rows lie far apart.
NARROW_OFFSETS = (
    (TURN, "x + b * p.x_b", "x + int(b * p.x_b)", "b"),
    (TURN, "int64_t(h) * p.x_h", "int(h * p.x_h)", "h"),
    (TURN, "int64_t(l) * p.x_l", "int(l * p.x_l)", "l"),
    (TURN, "int64_t(half_dim) * p.x_d", "int(half_dim * p.x_d)", "d"),
    (TURN, "int64_t(i) * stride", "int(i * stride)", "d"),
)
