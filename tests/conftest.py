"""Fixtures of several files; and hypothesis profiles, chosen with HYPOTHESIS_PROFILE.

fast (the default): a few examples per property, new ones each run.
ci (the default where CI is set): as many, but the same ones every time.
thorough: many, for a change of a kernel.

MLX_ESM_KERNELS_DEVICE=metal-emulator sends the ops of every test through the Metal kernels.
"""

import io
import itertools
import os

import pytest
from hypothesis import HealthCheck, settings
from metal_emulator import Emulator

# No deadline: the first call of an op may compile or start threads, and machines differ.
# Data come from a seed, so a slow draw is no sign of a poor strategy.
_COMMON = settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])

settings.register_profile("fast", _COMMON, max_examples=30)
settings.register_profile("ci", _COMMON, max_examples=30, derandomize=True, print_blob=True)
settings.register_profile("thorough", _COMMON, max_examples=500)
settings.load_profile(
    os.environ.get("HYPOTHESIS_PROFILE", "ci" if os.environ.get("CI") else "fast")
)


_caches = (f"cache{n}" for n in itertools.count())  # made only if something is kept


@pytest.fixture(autouse=True)
def _own_cache(tmp_path_factory, monkeypatch):
    """No test reads or writes the user's cache, nor another test's."""
    monkeypatch.setenv("MLX_ESM_KERNELS_CACHE", str(tmp_path_factory.getbasetemp() / next(_caches)))


@pytest.fixture
def emulator():
    """The ops on CPU streams run their Metal kernels in this emulator until the test ends."""
    from mlx_esm_kernels import _ext

    device = Emulator()
    _ext.emulate_metal(device.execute)
    yield device
    _ext.emulate_metal(None)


@pytest.fixture(scope="session", autouse=True)
def _device():
    name = os.environ.get("MLX_ESM_KERNELS_DEVICE", "cpu")
    if name not in ("cpu", "metal-emulator"):
        raise ValueError(f"MLX_ESM_KERNELS_DEVICE must be cpu or metal-emulator; got {name}.")
    if name == "cpu":
        yield
        return
    from mlx_esm_kernels import _ext

    _ext.emulate_metal(Emulator().execute)
    yield
    _ext.emulate_metal(None)


@pytest.fixture
def write(tmp_path):
    """Writes bytes into a file of a fresh folder and gives its path."""

    def write_file(content, name="proteins.fasta"):
        path = tmp_path / name
        path.write_bytes(content)
        return path

    return write_file


@pytest.fixture
def stdin(monkeypatch):
    """Puts bytes on standard input."""

    def give(content):
        monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(content)))

    return give


@pytest.fixture
def quick_turns(monkeypatch):
    """Benchmarks whose timings nobody reads: no pauses, and small GEMMs."""
    import measuring

    monkeypatch.setattr(measuring, "SETTLE_S", 0.0)
    monkeypatch.setattr(measuring, "BLOCK_S", 0.0)
    monkeypatch.setattr(measuring, "GEMM_SIZE", 64)
    measuring.gemm_runs.cache_clear()
    yield
    measuring.gemm_runs.cache_clear()
