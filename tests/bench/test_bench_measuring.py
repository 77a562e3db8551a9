"""What the benchmarks share: turns, warm-ups, budgets, lengths, and what the machine is called."""

from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path

import mlx.core as mx
import numpy as np
import pytest
from harness import measuring
from harness.measuring import Timing
from harness.real_lengths import real_lengths

from mlx_esm_kernels.data.synthetic import make_sample


class Clock:
    """Time that passes only when a function says so."""

    def __init__(self) -> None:
        self.now = 0.0
        self.calls: list[str] = []

    def perf_counter(self) -> float:
        return self.now

    process_time = perf_counter

    def sleep(self, seconds: float) -> None:
        self.now += seconds

    def function(self, name: str, *seconds: float) -> measuring.Run:
        """Takes these seconds in turn, the last ones for ever."""
        left = list(seconds)

        def run() -> None:
            self.calls.append(name)
            self.now += left.pop(0) if len(left) > 1 else left[0]

        return run


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(measuring, "time", clock)
    return clock


def test_warm_ups_do_not_count_and_functions_take_turns(clock: Clock) -> None:
    runs = {"a": clock.function("a", 9.0, 1.0), "b": clock.function("b", 8.0, 2.0)}
    found = measuring.alternate(runs, repeats=3, budget_s=100)
    assert (found["a"].seconds, found["b"].seconds) == (1.0, 2.0)
    assert (found["a"].calls, found["b"].calls) == (3, 3)
    assert clock.calls == ["a", "b"] * 4


def test_a_short_function_runs_again_and_again_in_its_turn(clock: Clock) -> None:
    found = measuring.alternate({"a": clock.function("a", 0.009)}, repeats=2)
    per_turn = -(-measuring.BLOCK_S // 0.009)
    assert found["a"].calls == 2 * per_turn
    assert len(clock.calls) == 2 + 2 * (1 + per_turn)  # warm-up, memory; each turn wakes first
    assert found["a"].seconds == pytest.approx(0.009)


def test_one_slow_outlier_moves_no_median(clock: Clock) -> None:
    found = measuring.alternate(
        {"a": clock.function("a", 1.0, 1.0, 50.0, 1.0)}, repeats=5, budget_s=100
    )
    assert found["a"].seconds == pytest.approx(1.0)


def test_the_budget_limits_each_function_alone(clock: Clock) -> None:
    runs = {"slow": clock.function("slow", 6.0), "middling": clock.function("middling", 3.0)}
    runs["fast"] = clock.function("fast", 1.0)
    found = measuring.alternate(runs, repeats=5, budget_s=10)
    assert {name: timing.calls for name, timing in found.items()} == {
        "slow": 1,
        "middling": 3,
        "fast": 5,
    }
    assert clock.calls.count("slow") == 1
    assert found["slow"].seconds == 6.0


def test_what_other_programs_disturb_is_repeated(
    clock: Clock, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    busy = iter([0.0, 5.0, 5.0, 5.1])  # of others, before and after each try
    monkeypatch.setattr(measuring, "_cpu_seconds_of_others", lambda: next(busy))
    assert measuring.undisturbed(clock.function("a", 10.0), "a run") == (None, False)
    assert clock.calls == ["a", "a"]
    assert "a run: other programs took 0.50 cores" in capsys.readouterr().out


def test_endless_disturbance_ends(clock: Clock, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(measuring, "_cpu_seconds_of_others", lambda: clock.now)
    assert measuring.undisturbed(clock.function("a", 10.0), "a run") == (None, True)
    assert clock.calls == ["a"] * measuring.TRIES


def test_the_peak_is_what_one_call_allocates() -> None:
    held = mx.ones((1000, 1000))
    mx.eval(held)
    found = measuring.alternate({"a": lambda: mx.eval(held + 1)}, repeats=1)
    assert 4e6 <= found["a"].peak_bytes < 5e6


def test_the_fastest_gemm_is_the_machines_rate() -> None:
    name, rate = measuring.gemm_rate({"a": Timing(2.0, 1, 1, 0), "b": Timing(0.5, 1, 1, 0)})
    assert name == "b"
    assert rate == 2 * measuring.GEMM_SIZE**3 / 0.5


def test_without_torch_the_gemm_is_our_linear(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(measuring, "installed", lambda package: False)
    (name,) = measuring.gemm_runs.__wrapped__("cpu")
    assert "our linear" in name


@pytest.mark.parametrize(("batch", "length"), [(16, 600), (64, 100)])
def test_lognormal_lengths_fill_the_share_that_is_asked_for(batch: int, length: int) -> None:
    ids = np.array(measuring.lognormal_ids(batch, length, 0.45))
    assert ids.shape == (batch, length)
    assert ids.mean() == pytest.approx(0.45, abs=0.01)
    lengths = ids.sum(axis=1)
    assert np.array_equal(ids, np.arange(length) < lengths[:, None])  # padding comes last
    assert len(set(lengths.tolist())) > batch // 2


def test_without_a_fasta_lengths_are_those_of_real_proteins() -> None:
    proteins, where = measuring.open_proteins(None)
    assert len(proteins) == 2872
    assert "Swiss-Prot" in where
    low, median, high = np.percentile(proteins.lengths, [0, 50, 100])
    assert 29 <= low < 60
    assert 250 < median < 275
    assert 2500 < high <= 2894
    some = real_lengths(50)  # a few are a true picture as well
    assert abs(np.median(some) - median) < 10
    assert not (np.diff(some) > 0).all()


def test_lengths_of_a_packed_batch_are_those_of_its_proteins() -> None:
    ids = np.array([[1, 1, 2, 0, 0], [1, 2, 2, 2, 3]])
    assert measuring.segment_lengths(ids).tolist() == [2, 1, 1, 3, 1]
    batch = measuring.packed_batch(make_sample(num_proteins=60).proteins, 4, 100)
    lengths = measuring.segment_lengths(batch.segment_ids)
    assert lengths.sum() == (batch.segment_ids != 0).sum()


def test_the_machine_is_described(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENBLAS_CORETYPE", "Nehalem")
    about = measuring.describe_machine("cpu")
    words = measuring.machine_in_words(about)
    for expected in (
        about["instruction_set"],
        f"mlx {mx.__version__}",
        "OPENBLAS_CORETYPE=Nehalem",
    ):
        assert expected in words
    assert about["cores"] >= 1


def test_torchs_instruction_set_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    torch = pytest.importorskip("torch")
    used = torch.backends.cpu.get_cpu_capability().lower()
    assert f"(torch: {used})" in measuring.machine_in_words(measuring.describe_machine("cpu"))
    monkeypatch.setattr(measuring, "installed", lambda package: False)
    assert "(torch:" not in measuring.machine_in_words(measuring.describe_machine("cpu"))


@pytest.mark.skipif(not Path("/proc/stat").exists(), reason="the system does not say")
def test_what_processes_of_the_benchmark_take_is_not_taken_by_others() -> None:
    busy = subprocess.Popen([sys.executable, "-c", "while True: pass"])
    try:
        time.sleep(0.5)
        taken = measuring._cpu_seconds_of_others()
        measuring.helpers.add(busy.pid)
        less = measuring._cpu_seconds_of_others()
    finally:
        measuring.helpers.discard(busy.pid)
        busy.kill()
        busy.wait()
    assert taken - less > 0.1
