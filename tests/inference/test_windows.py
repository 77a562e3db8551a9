"""Windows over proteins that are too long: every residue once, with as much in sight as can be."""

from itertools import pairwise

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from mlx_esm_kernels.inference.windows import Window, centred_starts, tile


@given(length=st.integers(1, 300), window=st.integers(1, 60))
def test_every_residue_is_kept_once_in_order_by_a_window_that_sees_it(length, window):
    windows = tile(length, window)
    kept = [i for w in windows for i in range(w.keep_start, w.keep_end)]
    assert kept == list(range(length))
    assert all(0 <= w.start <= w.keep_start < w.keep_end <= w.end <= length for w in windows)
    assert all(w.end - w.start == min(window, length) for w in windows)


@given(length=st.integers(1, 300), window=st.integers(4, 60))
def test_windows_overlap_by_a_quarter_and_one_fewer_would_not(length, window):
    windows = tile(length, window)
    overlaps = [a.end - b.start for a, b in pairwise(windows)]
    assert all(overlap >= window // 4 for overlap in overlaps)
    if len(windows) > 1:
        most = window + (len(windows) - 2) * (window - window // 4)
        assert length > most


@given(length=st.integers(2, 200), window=st.integers(2, 50))
def test_a_residue_is_kept_where_the_nearest_end_of_a_window_is_farthest(length, window):
    windows = tile(length, window)

    def depth(w, residue):
        return min(residue - w.start, w.end - 1 - residue)

    for w in windows:
        for residue in range(w.keep_start, w.keep_end):
            seen = [depth(v, residue) for v in windows if v.start <= residue < v.end]
            # The middle of an overlap may fall between two residues.
            assert depth(w, residue) >= max(seen) - 1


def test_a_protein_that_fits_is_one_window():
    assert tile(10, 10) == [Window(0, 10, 0, 10)]
    assert [(w.start, w.keep_start) for w in tile(16, 8)] == [(0, 0), (4, 6), (8, 10)]


@given(length=st.integers(1, 100), window=st.integers(1, 100))
def test_a_centred_window_holds_its_position_as_near_to_the_middle_as_can_be(length, window):
    positions = np.arange(length)
    window = min(window, length)
    starts = centred_starts(positions, length, window)
    assert ((starts >= 0) & (starts + window <= length)).all()
    assert ((starts <= positions) & (positions < starts + window)).all()
    inside = (starts > 0) & (starts + window < length)
    assert (positions[inside] - starts[inside] == window // 2).all()
