"""Entropy of windows, as SEG has it."""

import math
from collections import Counter

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mlx_esm_kernels.data.alphabet import ESM1B, STANDARD_RESIDUES
from mlx_esm_kernels.data.low_complexity import TRIGGER_BITS, WINDOW, window_entropies
from mlx_esm_kernels.data.targets import symbols

# What a window of 12 is made of, and its entropy by hand.
KNOWN = [
    ("AAAAAAAAAAAA", 0.0),
    ("ACACACACACAC", 1.0),
    ("AAACCCDDDEEE", 2.0),
    ("AACCDDEEFFGG", math.log2(6)),
    ("ACDEFGHIKLMN", math.log2(12)),
]


def entropies(text):
    return window_entropies(symbols(ESM1B)[ESM1B.encode(text)].astype(np.int16))


@pytest.mark.parametrize(("window", "bits"), KNOWN)
def test_known_windows(window, bits):
    assert entropies(window) == pytest.approx([bits], abs=1e-12)


@given(st.text(STANDARD_RESIDUES + "X", max_size=60))
def test_each_window_has_the_entropy_of_its_letters(text):
    windows = [text[i : i + WINDOW] for i in range(len(text) - WINDOW + 1)]
    expected = [
        -sum(n / WINDOW * math.log2(n / WINDOW) for n in Counter(window).values())
        for window in windows
        if "X" not in window
    ]
    assert entropies(text) == pytest.approx(expected, abs=1e-9)


@given(st.sampled_from(STANDARD_RESIDUES), st.integers(WINDOW, 80))
def test_all_of_one_residue_is_low_complexity(residue, length):
    found = entropies(residue * length)
    assert len(found) == length - WINDOW + 1
    assert (found <= TRIGGER_BITS).all()


def test_residues_at_random_are_hardly_ever():
    text = "".join(np.random.default_rng(0).choice(list(STANDARD_RESIDUES), 20_000))
    assert (entropies(text) <= TRIGGER_BITS).mean() < 0.001
