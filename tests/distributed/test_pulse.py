"""The common clock and signals of several processes."""

import signal
import struct
import subprocess
import sys
import time

import pytest

from mlx_esm_kernels.distributed.pulse import Pulse
from mlx_esm_kernels.distributed.ranks import Ranks
from mlx_esm_kernels.system.interrupt import StopOnSignal


class Heard(Ranks):
    """One of three processes; the others have said what they are made with."""

    def __init__(self, others):
        super().__init__()
        self.number, self.count, self.others = 1, 3, others

    def gather(self, content):
        first, last = self.others
        return [struct.pack("<dq", *first), content, struct.pack("<dq", *last)]


def test_all_go_by_the_clock_of_the_first_and_by_a_signal_to_any():
    ranks = Heard([(12.5, 0), (99.0, 0)])
    with StopOnSignal() as stop, Pulse(ranks, stop) as pulse:
        assert (pulse.now, pulse.received) == (12.5, None)
        ranks.others = [(13.0, 0), (99.0, signal.SIGHUP)]
        assert (pulse.now, pulse.received) == (12.5, None)  # until the next beat
        pulse.beat()
        assert (pulse.now, pulse.received) == (13.0, signal.SIGHUP)


def test_one_process_alone_has_its_own_clock():
    with StopOnSignal() as stop, Pulse(Ranks(), stop) as pulse:
        before = pulse.now
        stop.received = signal.SIGTERM
        pulse.beat()
        assert before < pulse.now <= time.perf_counter()
        assert pulse.received == signal.SIGTERM


WAITS = """
import ctypes, struct, sys
from mlx_esm_kernels.distributed import pulse
from mlx_esm_kernels.distributed.ranks import Ranks
from mlx_esm_kernels.system.interrupt import StopOnSignal

pulse.PATIENCE_S = 0.2

class Lost(Ranks):
    calls = 0
    def gather(self, content):
        self.calls += 1
        if self.calls > 1:
            print("waiting", flush=True)
            while True:
                ctypes.CDLL(None).sleep(60)  # as a call into MLX: Python's handlers do not run
        return [content, content]

ranks = Lost()
ranks.count = 2
with StopOnSignal() as stop, pulse.Pulse(ranks, stop) as beats:
    beats.beat()
"""


def test_a_signal_ends_one_that_waits_for_a_process_that_has_died(tmp_path):
    script = tmp_path / "waits.py"
    script.write_text(WAITS)
    with subprocess.Popen(
        [sys.executable, script], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        try:
            assert process.stdout.readline() == "waiting\n"
            process.send_signal(signal.SIGTERM)
            said = process.communicate(timeout=30)[1]
        finally:
            process.kill()
    assert process.returncode == 1
    assert "process 0 of 2 got a signal, and heard no more from the others" in said


LOSES = """
import os, signal, sys
from mlx_esm_kernels.distributed.pulse import Pulse
from mlx_esm_kernels.distributed.ranks import Ranks
from mlx_esm_kernels.system.interrupt import StopOnSignal

class Alike(Ranks):
    def gather(self, content):
        return [content, content]

ranks = Alike()
ranks.count = 2
try:
    with StopOnSignal() as stop, Pulse(ranks, stop):
        for _ in range(int(sys.argv[1])):
            os.kill(os.getpid(), signal.SIGTERM)
        raise RuntimeError("[ring] lost")
except RuntimeError as error:
    os.kill(os.getpid(), signal.SIGTERM)
    print(error, flush=True)
"""


@pytest.mark.parametrize("before", [0, 1])
def test_one_that_has_lost_another_says_so_before_the_launchers_signal_ends_it(tmp_path, before):
    script = tmp_path / "loses.py"
    script.write_text(LOSES)
    done = subprocess.run([sys.executable, script, str(before)], capture_output=True, text=True)
    assert (done.stdout, done.returncode) == ("[ring] lost\n", 0), done.stderr
