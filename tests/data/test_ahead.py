"""Batches that a thread makes ahead: the very same ones, and no thread outlives its block."""

import subprocess
import sys
import threading
import time

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from mlx_esm_kernels.data.ahead import BatchesAhead
from mlx_esm_kernels.data.alphabet import ESM1B, STANDARD_RESIDUES
from mlx_esm_kernels.data.masked_batches import MaskedBatches
from mlx_esm_kernels.data.packing import PackedBatches
from mlx_esm_kernels.data.proteins import Proteins

RNG = np.random.default_rng(5)
# Some are cropped; an epoch is six batches or so.
PROTEINS = Proteins.from_sequences(
    "".join(RNG.choice(list(STANDARD_RESIDUES), length)) for length in RNG.integers(5, 40, 12)
)


def masked_batches():
    batches = PackedBatches(PROTEINS, range(12), ESM1B, rows=2, row_length=32, seed=3)
    return MaskedBatches(batches, ESM1B, 7)


def bits(batch):
    masked = batch.masked
    arrays = (masked.inputs, masked.positions, masked.targets, masked.weights, batch.segment_ids)
    return [array.tobytes() for array in arrays], batch.residues


def threads_ahead():
    return [thread for thread in threading.enumerate() if thread.name == "batches ahead"]


@given(
    st.lists(st.sampled_from(["next", "place", "keep", "back", "open", "close", "rest"])),
    st.integers(1, 5),
)
@example(["open", "next", "rest", "back", "next"], 3)
@example(["open", "next", "keep", "next", "rest", "close", "next", "open", "back", "next"], 2)
def test_batches_and_places_are_those_of_no_thread(calls, count):
    plain, ahead = masked_batches(), BatchesAhead(masked_batches(), count)
    kept = plain.place()
    is_open = False
    for call in calls:
        if call == "next":
            assert bits(next(ahead)) == bits(next(plain))
        elif call == "place":
            assert ahead.place() == plain.place()
        elif call == "keep":
            kept = plain.place()
        elif call == "back":
            ahead.go_to(kept)
            plain.go_to(kept)
        elif call == "rest":
            time.sleep(0.005)  # until what may lie ready does
        elif call == "open" and not is_open:
            is_open = True
            ahead.__enter__()
        elif call == "close" and is_open:
            is_open = False
            ahead.__exit__()
    if is_open:
        ahead.__exit__()
    assert ahead.place() == plain.place()
    assert bits(next(ahead)) == bits(next(plain))
    assert not threads_ahead()


def test_no_more_lie_ready_than_asked_for_and_they_are_made_while_nobody_asks():
    masked = masked_batches()
    with BatchesAhead(masked, 3) as ahead:
        for taken in range(1, 4):
            next(ahead)
            until = time.monotonic() + 10
            # The third but one lies ready while the next waits for its place.
            while masked.place() != place_after(taken + 3) and time.monotonic() < until:
                time.sleep(0.001)
            assert masked.place() == place_after(taken + 3)
            time.sleep(0.01)
            assert masked.place() == place_after(taken + 3), "more than three"


def place_after(count):
    masked = masked_batches()
    for _ in range(count):
        next(masked)
    return masked.place()


class Failing(MaskedBatches):
    """Its fourth batch cannot be made."""

    made = 0

    def __next__(self):
        self.made += 1
        if self.made == 4:
            raise OSError(5, "Input/output error")
        return super().__next__()


def test_an_error_comes_where_its_batch_would_have_come():
    plain = masked_batches()
    failing = Failing(plain.batches, ESM1B, 7)
    with BatchesAhead(failing) as ahead:
        for _ in range(3):
            next(ahead)
        place = ahead.place()
        for _ in range(2):
            with pytest.raises(OSError, match="Input/output error"):
                next(ahead)
        assert ahead.place() == place
        ahead.go_to(place)
        next(ahead)  # the disk is well again
    assert not threads_ahead()


def test_the_thread_ends_with_the_block_whatever_ends_it():
    def interrupted():
        with BatchesAhead(masked_batches()):
            assert len(threads_ahead()) == 1
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    assert not threads_ahead()


def test_it_does_not_keep_a_process_alive():
    program = (
        "from test_ahead import *\n"
        "class Slow(MaskedBatches):\n"
        "    def __next__(self):\n"
        "        time.sleep(60)\n"
        "BatchesAhead(Slow(masked_batches().batches, ESM1B, 7)).__enter__()\n"
        "print('done')\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", program],
        cwd=__file__.rsplit("/", 1)[0],
        capture_output=True,
        text=True,
        timeout=30,
    )
    assert (done.returncode, done.stdout) == (0, "done\n"), done.stderr


def test_at_least_one_lies_ready():
    with pytest.raises(ValueError, match="count must be positive; got 0"):
        BatchesAhead(masked_batches(), 0)
