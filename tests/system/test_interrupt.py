"""Ctrl-C, once and twice."""

import signal
import threading
from collections.abc import Iterator

import pytest
from test_console import run_on_terminal

from mlx_esm_kernels.system.interrupt import StopOnSignal


@pytest.fixture(autouse=True)
def _python_answers_ctrl_c() -> Iterator[None]:
    """As it does unless a shell started the tests in the background, where SIGINT is ignored."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_the_first_signal_is_noted_and_the_work_goes_on(number):
    with StopOnSignal() as stop:
        assert stop.received is None
        signal.raise_signal(number)
        assert stop.received == number


def test_a_second_ctrl_c_stops_at_once():
    with StopOnSignal():
        signal.raise_signal(signal.SIGINT)
        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(signal.SIGINT)


@pytest.mark.parametrize("number", [signal.SIGHUP, signal.SIGUSR1, signal.SIGUSR2, signal.SIGXCPU])
def test_what_ends_a_program_otherwise_is_noted_however_often_it_comes(number):
    before = signal.signal(number, signal.SIG_DFL)  # whatever these tests are run under
    try:
        with StopOnSignal() as stop:
            signal.raise_signal(number)
            signal.raise_signal(number)
            assert stop.received == number
        assert signal.getsignal(number) == signal.SIG_DFL
    finally:
        signal.signal(number, before)


def test_a_signal_that_is_ignored_or_somebodys_is_left_to_them():
    seen = []
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)  # as under nohup
    other = signal.signal(signal.SIGUSR1, lambda number, frame: seen.append(number))
    try:
        with StopOnSignal() as stop:
            signal.raise_signal(signal.SIGHUP)
            signal.raise_signal(signal.SIGUSR1)
            assert stop.received is None
    finally:
        signal.signal(signal.SIGHUP, before)
        signal.signal(signal.SIGUSR1, other)
    assert seen == [signal.SIGUSR1]


def test_a_person_at_a_terminal_is_answered_at_once():
    code = "import signal; from mlx_esm_kernels.system.interrupt import StopOnSignal\n"
    code += "with StopOnSignal(): signal.raise_signal(signal.SIGINT)"
    assert "Stopping after this step; Ctrl-C again stops at once." in run_on_terminal(code)


def test_afterwards_signals_mean_what_they_did_before():
    before = signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM)
    with StopOnSignal():
        assert signal.getsignal(signal.SIGINT) != before[0]
    assert (signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM)) == before


def test_another_thread_can_train_too():
    stops = []

    def work():
        with StopOnSignal() as stop:
            stops.append(stop)

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert stops[0].received is None
