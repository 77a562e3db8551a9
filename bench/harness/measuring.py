"""What the benchmarks share: timing in turns, the machine, its GEMM rate, protein lengths."""

from __future__ import annotations

import ctypes
import functools
import importlib.metadata
import importlib.util
import os
import platform
import statistics
import subprocess
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import click
import mlx.core as mx
import numpy as np

from mlx_esm_kernels import ops
from mlx_esm_kernels.data.alphabet import ESM1B
from mlx_esm_kernels.data.packing import Batch, PackedBatches
from mlx_esm_kernels.data.proteins import Proteins, load_proteins

from .real_lengths import SOURCE, real_proteins

DTYPES = {"float32": mx.float32, "float16": mx.float16, "bfloat16": mx.bfloat16}
Run = Callable[[], Any]
helpers: set[int] = set()  # processes that work for this one
Result = TypeVar("Result")

SETTLE_S = 0.03  # threads of OpenMP and OpenBLAS spin for up to this long before they sleep
BLOCK_S = 0.04  # a function is timed again and again for this long before the next one's turn
DISTURBED = 0.15  # cores that others may take
TRIES = 3
SLOW_S = 0.5  # a call that takes longer needs no second one for its memory
GEMM_SIZE = 1536  # square; the caches of one core hold none of the three matrices
# What changes how fast the other side's libraries run; printed where it is set.
VARIABLES = (
    "OPENBLAS_CORETYPE",
    "OPENBLAS_L2_SIZE",
    "OPENBLAS_NUM_THREADS",
    "OMP_NUM_THREADS",
    "OMP_WAIT_POLICY",
    "GOMP_SPINCOUNT",
    "KMP_BLOCKTIME",
    "MKL_NUM_THREADS",
    "MKL_ENABLE_INSTRUCTIONS",
    "ONEDNN_MAX_CPU_ISA",
    "ATEN_CPU_CAPABILITY",
    "MLX_ESM_KERNELS_NUM_THREADS",
    "MLX_ESM_KERNELS_CPU_TARGET",
)


@dataclass(frozen=True)
class Timing:
    """seconds: the median of `calls`. cores: CPU time over wall time, waiting threads that spin
    included. peak_bytes: of MLX's allocator, beyond what stood before the call."""

    seconds: float
    calls: int
    cores: float
    peak_bytes: int


def alternate(
    runs: dict[str, Run], *, repeats: int = 5, budget_s: float = 60.0
) -> dict[str, Timing]:
    """Time each function, in turns, after a warm-up of the same function.

    Freed memory is kept for the process, and so for every function, as the commands do it:
    otherwise the page faults that a function's outputs cost depend on what was freed before it.
    Before each turn the threads of the one before get time to fall asleep, so that no two pools
    are awake at once. A short function then runs once untimed, which wakes its own threads and
    fills the caches, and is timed for BLOCK_S.

    Args:
        runs: functions that wait for their results.
        repeats: turns of each.
        budget_s: seconds that the turns of one function may take. One whose warm-up alone takes
            half of it is not run again: the warm-up is its timing.
    """
    ops.keep_freed_memory()
    first = {name: _timed_once(run) for name, run in runs.items()}
    turns = {
        name: 0 if found.seconds > budget_s / 2 else min(repeats, int(budget_s / found.seconds))
        for name, found in first.items()
    }
    peaks = {
        name: _timed_once(run).peak_bytes
        if first[name].seconds < SLOW_S
        else first[name].peak_bytes
        for name, run in runs.items()
    }
    seconds: dict[str, list[float]] = {name: [] for name in runs}
    cores: dict[str, list[float]] = {name: [] for name in runs}
    for turn in range(repeats):
        for name, run in runs.items():
            if turn < turns[name]:
                _take_turn(run, first[name].seconds, seconds[name], cores[name])
    return {
        name: Timing(
            statistics.median(seconds[name]),
            len(seconds[name]),
            statistics.median(cores[name]),
            peaks[name],
        )
        if seconds[name]
        else first[name]
        for name in runs
    }


def _timed_once(run: Run) -> Timing:
    time.sleep(SETTLE_S)
    mx.clear_cache()
    mx.reset_peak_memory()
    held, busy, start = mx.get_active_memory(), time.process_time(), time.perf_counter()
    run()
    seconds = time.perf_counter() - start
    peak = max(0, mx.get_peak_memory() - held)
    return Timing(seconds, 1, (time.process_time() - busy) / seconds, peak)


def _take_turn(run: Run, expected_s: float, seconds: list[float], cores: list[float]) -> None:
    time.sleep(SETTLE_S)
    if expected_s < BLOCK_S:
        run()
    end = time.perf_counter() + BLOCK_S
    while True:
        busy, start = time.process_time(), time.perf_counter()
        run()
        now = time.perf_counter()
        seconds.append(now - start)
        cores.append((time.process_time() - busy) / (now - start))
        if now >= end:
            return


def undisturbed(measure: Callable[[], Result], what: str) -> tuple[Result, bool]:
    """The result of `measure`, repeated where other programs took much of the cores meanwhile.

    Returns:
        The last result, and whether it was disturbed all the same.
    """
    for _ in range(TRIES):
        others, start = _cpu_seconds_of_others(), time.perf_counter()
        result = measure()
        taken = (_cpu_seconds_of_others() - others) / (time.perf_counter() - start)
        if taken < DISTURBED:
            return result, False
        click.echo(f"  {what}: other programs took {taken:.2f} cores meanwhile")
    return result, True


def _cpu_seconds_of_others() -> float:
    """CPU time that all but this process and its helpers have had; 0 where nobody says."""
    statistics_file = Path("/proc/stat")
    if not statistics_file.exists():
        return 0.0
    own = {f"cpu{core}" for core in os.sched_getaffinity(0)}
    lines = [line.split() for line in statistics_file.read_text().splitlines()]
    # user, nice, system, (idle, iowait,) irq, softirq, steal
    ticks = sum(
        sum(map(int, line[1:4])) + sum(map(int, line[6:9])) for line in lines if line[0] in own
    )
    for helper in helpers:
        _, _, after_name = Path(f"/proc/{helper}/stat").read_text().rpartition(")")
        ticks -= sum(map(int, after_name.split()[11:13]))  # user, system
    return ticks / os.sysconf("SC_CLK_TCK") - time.process_time()


def installed(package: str) -> bool:
    """Whether torch, esm or the like can be imported."""
    return importlib.util.find_spec(package) is not None


@functools.cache
def gemm_runs(device: str) -> dict[str, Run]:
    """Every sgemm at hand, by what it is; each does 2 GEMM_SIZE ** 3 operations."""
    a, b = (mx.random.normal((GEMM_SIZE, GEMM_SIZE), key=mx.random.key(i)) for i in range(2))
    mx.eval(a, b)
    if device == "gpu":
        return {"mx.matmul": lambda: mx.eval(a @ b)}
    runs: dict[str, Run] = {
        f"our linear on OpenBLAS {blas_core()}": lambda: mx.eval(ops.linear(a, b))
    }
    if installed("torch"):
        import torch

        x, y = torch.from_numpy(np.array(a)), torch.from_numpy(np.array(b))
        out = torch.empty_like(x)
        blas = "MKL" if torch.backends.mkl.is_available() else "its BLAS"
        runs[f"torch with {blas}"] = lambda: torch.mm(x, y, out=out)
    return runs


def gemm_rate(timings: dict[str, Timing]) -> tuple[str, float]:
    """The best sgemm among the timings of `gemm_runs`, and its operations a second."""
    best = min(timings, key=lambda name: timings[name].seconds)
    return best, 2 * GEMM_SIZE**3 / timings[best].seconds


def blas_core() -> str:
    """The kernels that our OpenBLAS chose for this CPU, such as SkylakeX; Accelerate on a Mac."""
    if platform.system() != "Linux":
        return "(Accelerate)"
    import scipy_openblas32

    path = Path(scipy_openblas32.get_lib_dir()) / scipy_openblas32.get_library(fullname=True)
    corename = ctypes.CDLL(str(path)).scipy_openblas_get_corename
    corename.restype = ctypes.c_char_p
    return str(corename().decode())


def describe_machine(device: str) -> dict[str, Any]:
    """What a reader must know of the machine to compare figures."""
    packages = ("mlx", "mlx-esm-kernels", "numpy", "torch", "fair-esm", "transformers")
    versions = {"python": platform.python_version()}
    for package in packages:
        try:
            versions[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            continue
    about: dict[str, Any] = {
        "device": device,
        "machine": _cpu_name(),
        "platform": platform.platform(),
        "cores": ops.num_threads(),
        "instruction_set": ops.cpu_target(),
        "torch_instruction_set": _torch_instruction_set(),
        "blas": blas_core(),
        "versions": versions,
        "variables": {name: os.environ[name] for name in VARIABLES if name in os.environ},
    }
    if device == "gpu":
        about["gpu"] = mx.device_info(mx.gpu)["device_name"]
    return about


def _torch_instruction_set() -> str:
    """What torch's own kernels use, such as avx2 (MKL and oneDNN do not tell); "" without torch."""
    if not installed("torch"):
        return ""
    import torch

    return str(torch.backends.cpu.get_cpu_capability()).lower()


def machine_in_words(about: dict[str, Any]) -> str:
    """One line of `describe_machine`."""
    versions = ", ".join(f"{name} {version}" for name, version in about["versions"].items())
    variables = [f"{name}={value}" for name, value in about["variables"].items()]
    which = ", ".join(variables) or "no variable set that matters"
    where = f"{about['gpu']}, " if "gpu" in about else ""
    torch = about["torch_instruction_set"]
    beside = f" (torch: {torch})" if torch else ""
    return (
        f"{where}{about['machine']}, {about['cores']} cores in use, "
        f"{about['instruction_set']}{beside}, BLAS kernels {about['blas']}; {versions}; {which}"
    )


def _cpu_name() -> str:
    info = Path("/proc/cpuinfo")
    if info.exists():
        for line in info.read_text().splitlines():
            if line.startswith("model name"):
                return line.split(":", 1)[1].strip()
    if platform.system() == "Darwin":
        command = ["sysctl", "-n", "machdep.cpu.brand_string"]
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()
    return platform.machine()


def open_proteins(fasta: str | None) -> tuple[Proteins, str]:
    """The proteins whose lengths are used, and which these are, in words."""
    if fasta:
        return load_proteins(fasta), Path(fasta).name
    return real_proteins(), SOURCE


def lengths_in_words(proteins: Proteins, where: str) -> str:
    """Where the proteins are from, and how long they are."""
    low, first, median, third, high = np.percentile(proteins.lengths, [0, 25, 50, 75, 100])
    return (
        f"{where}, {len(proteins):,} proteins of {low:.0f} to {high:.0f} residues, half of them "
        f"between {first:.0f} and {third:.0f}, median {median:.0f}"
    )


def padded_ids(tokens: np.ndarray, batch: int, length: int) -> mx.array:
    """(B, L) segment ids of one protein a row, drawn from lengths in tokens, each cut to L."""
    drawn = np.random.default_rng(0).choice(tokens, batch)
    return mx.array((np.arange(length) < drawn[:, None]).astype(np.int32))


def lognormal_ids(batch: int, length: int, fill: float, spread: float = 0.6) -> mx.array:
    """(B, L) segment ids of one protein a row, lognormal lengths cut to L; that share is full."""
    # Quantiles rather than draws: the batch is a true picture of the distribution, however small.
    quantiles = (np.arange(batch) + 0.5) / batch
    normal = np.array([statistics.NormalDist().inv_cdf(float(q)) for q in quantiles])
    low, high = 0.0, float(length)
    for _ in range(60):
        median = (low + high) / 2
        drawn = np.minimum(np.round(median * np.exp(spread * normal)), length)
        low, high = (median, high) if drawn.mean() < fill * length else (low, median)
    np.random.default_rng(0).shuffle(drawn)
    return mx.array((np.arange(length) < drawn[:, None]).astype(np.int32))


def packed_batch(proteins: Proteins, rows: int, row_length: int) -> Batch:
    """The first full batch of real proteins packed as training packs them."""
    batches = PackedBatches(
        proteins, np.arange(len(proteins)), ESM1B, rows=rows, row_length=row_length, seed=0
    )
    return next(iter(batches))


def segment_lengths(ids: np.ndarray) -> np.ndarray:
    """Tokens of each protein in a packed batch (B, L) of segment ids, row after row."""
    return np.concatenate([np.bincount(row)[1:] for row in np.asarray(ids)])
