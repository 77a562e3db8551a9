"""Apple's GPUs as a roofline sees them.

Rates marked known are public figures; the others are derived: cores x 128 lanes x 2 x clock, and
bandwidths of the same memory in a sibling. What holds for all of them is in PER_CORE, from
philipturner/metal-benchmarks and chipsandcheese.com's measurements of an M1.
"""

from __future__ import annotations

from dataclasses import dataclass

LANES = 128  # of a core
MATRIX_LANES = 102  # of them that simdgroup_matrix keeps busy
EXP2_PER_CYCLE = 32  # of a core
THREADGROUP_BYTES_PER_CYCLE = 64  # of a core
L2_BYTES_PER_CYCLE = 37.5  # of a core: 384 GB/s on the eight of an M1
SECONDS_PER_LAUNCH = 3e-6
SLC_TIMES_MEMORY = 2.0  # bandwidth of the last cache, over that of memory: 134 / 68 GB/s on an M1

# Shares of the roofs that real kernels reach. Ours: metal-flash-attention's forward and backward
# are at 62 to 71 % of an M1's and M3's peak; an attention kernel for training on simdgroup_matrix
# (mlx-train-perf, M1 Max) is at about 30 %; that of MLX's pull request 3241 (M3 Max, float16,
# dense) has 0.36 to 0.70 of MLX's unfused speed. By the counts of ours, with the loads added, these
# two reach 0.5 to 0.65 and, at D = 64, 0.4 to 0.8 of their roofs: the low share is pessimistic.
SHARE, LOW_SHARE = 0.6, 0.3
# MLX's forward: 0.82 (M3 Max, float16, D = 64) to 0.98 (M3 Ultra, L from 4096 on) of the rate of
# matrix products. That its backward and its unfused passes do as well is assumed.
MLX_SHARE = 0.85


@dataclass(frozen=True)
class Chip:
    """generation as MLX counts: 13 is M1. tflops: float32. gb_per_s: of memory. slc_mb: of the
    last cache, assumed where Apple says nothing."""

    name: str
    generation: int
    cores: int
    tflops: float
    gb_per_s: float
    slc_mb: float
    derived: bool = False

    @property
    def clock(self) -> float:
        """Cycles a second, from rate and cores."""
        return self.tflops * 1e12 / (self.cores * LANES * 2)

    @property
    def matrix_flops(self) -> float:
        """Of float32 fragments, a second."""
        return self.tflops * 1e12 * MATRIX_LANES / LANES

    def per_second(self, per_cycle_of_a_core: float) -> float:
        return per_cycle_of_a_core * self.cores * self.clock


CHIPS = (
    Chip("M1", 13, 8, 2.6, 68, 8),
    Chip("M1 Pro", 13, 16, 5.3, 200, 24),
    Chip("M1 Max", 13, 32, 10.6, 400, 48),
    Chip("M1 Ultra", 13, 64, 21.2, 800, 96),
    Chip("M2", 14, 10, 3.6, 100, 8),
    Chip("M2 Pro", 14, 19, 6.8, 200, 24),
    Chip("M2 Max", 14, 38, 13.6, 400, 48),
    Chip("M2 Ultra", 14, 76, 27.2, 800, 96, derived=True),
    Chip("M3", 15, 10, 3.6, 100, 8, derived=True),
    Chip("M3 Pro", 15, 18, 6.4, 150, 12),
    Chip("M3 Max", 15, 40, 14.3, 400, 48),
    Chip("M3 Ultra", 15, 80, 28.6, 800, 96, derived=True),
    Chip("M4", 16, 10, 3.6, 120, 8),
    Chip("M4 Pro", 16, 20, 7.2, 273, 24, derived=True),
    Chip("M4 Max", 16, 40, 17.1, 546, 48, derived=True),
    Chip("M5", 17, 10, 3.8, 154, 8),
    Chip("M5 Pro", 17, 20, 7.6, 307, 24, derived=True),
    Chip("M5 Max", 17, 40, 15.2, 614, 48, derived=True),
)
