"""Fixtures of several files; and hypothesis profiles, chosen with HYPOTHESIS_PROFILE.

fast (the default): a few examples per property, new ones each run.
ci (the default where CI is set): as many, but the same ones every time.
thorough: many, for a change of a kernel.

On a Metal GPU, real or emulated, tests of the ops are of our kernels, whatever would serve a call
faster, unless MLX_ESM_KERNELS_GPU_KERNELS says otherwise.
MLX_ESM_KERNELS_DEVICE=metal-emulator sends the ops of every test through the Metal kernels, and
has the run say at its end that they all went there. The emulator and its compiler are imported
only by what uses them.
"""

import io
import itertools
import os
import platform

import pytest
from hypothesis import HealthCheck, settings

# No deadline: the first call of an op may compile or start threads, and machines differ.
# Data come from a seed, so a slow draw is no sign of a poor strategy.
_COMMON = settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])

settings.register_profile("fast", _COMMON, max_examples=30)
settings.register_profile("ci", _COMMON, max_examples=30, derandomize=True, print_blob=True)
settings.register_profile("thorough", _COMMON, max_examples=500)
os.environ.setdefault("MLX_ESM_KERNELS_GPU_KERNELS", "ours")
settings.load_profile(
    os.environ.get("HYPOTHESIS_PROFILE", "ci" if os.environ.get("CI") else "fast")
)


_caches = (f"cache{n}" for n in itertools.count())  # made only if something is kept


@pytest.fixture(autouse=True)
def _own_cache(tmp_path_factory, monkeypatch):
    """No test reads or writes the user's cache, nor another test's."""
    monkeypatch.setenv("MLX_ESM_KERNELS_CACHE", str(tmp_path_factory.getbasetemp() / next(_caches)))


def pytest_make_parametrize_id(val, argname):
    """Names of tests are the same in every process, or pytest-xdist refuses to share them out; but
    the bytes of gzip and zip files bear the time at which they were made."""
    is_binary = isinstance(val, bytes) and (b"\0" in val or not val.isascii())
    return argname if is_binary else None


@pytest.fixture
def emulator():
    """The ops on CPU streams run their Metal kernels in this emulator until the test ends."""
    if (platform.system(), platform.machine()) != ("Linux", "x86_64"):
        pytest.skip("the emulator runs on Linux x86-64")
    from metal_emulator import Emulator, emulating

    device = Emulator()
    with emulating(device.execute):
        yield device


class EmulatedRun:
    """The emulated GPU of a whole run; `plans` and `tests` count what it ran, `left` names tests
    that ended it."""

    def __init__(self):
        from metal_emulator import Emulator

        self.plans, self.tests, self.left = 0, 0, []
        self._emulator = Emulator()

    def execute(self, plan):
        self.plans += 1
        self._emulator.execute(plan)

    def check(self, test):
        """Put it back in place, and fail, where a test has ended it."""
        import mlx.core as mx

        from mlx_esm_kernels import _ext

        self.tests += 1
        if not _ext.runs_on_metal(mx.cpu):
            self.left.append(test)
            _ext.emulate_metal(self.execute)
            pytest.fail(f"{test} ended the emulation of the whole run.", pytrace=False)


_run = pytest.StashKey[EmulatedRun]()


@pytest.hookimpl(wrapper=True)
def pytest_runtestloop(session):
    name = os.environ.get("MLX_ESM_KERNELS_DEVICE", "cpu")
    if name not in ("cpu", "metal-emulator"):
        raise pytest.UsageError(
            f"MLX_ESM_KERNELS_DEVICE must be cpu or metal-emulator; got {name}."
        )
    if name == "cpu":
        return (yield)
    from metal_emulator import emulating

    run = session.config.stash[_run] = EmulatedRun()
    with emulating(run.execute):
        return (yield)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_teardown(item):
    """After all fixtures, so that none of them has the extension say what is not so."""
    yield
    if run := item.config.stash.get(_run, None):
        run.check(item.nodeid)


def pytest_terminal_summary(terminalreporter, config):
    if run := config.stash.get(_run, None):
        said = f"all op calls of {run.tests} tests stayed there"
        if run.left:
            said = f"left by {', '.join(run.left)}"
        plans = f"launch plans outside of tests' own emulators: {run.plans}"
        terminalreporter.write_line(f"metal-emulator: {said}; {plans}", red=bool(run.left))


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
