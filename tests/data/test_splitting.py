"""Which proteins are in which part."""

import warnings

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mlx_esm_kernels.data.splitting import SplitWarning, split_by_column, split_by_hash
from mlx_esm_kernels.system.errors import DataError

HASHES = st.lists(st.integers(0, 2**64 - 1), min_size=3, max_size=60).filter(
    lambda hashes: len(set(hashes)) >= 3
)
SHARES = st.floats(0.01, 0.49)


@given(HASHES, SHARES, SHARES)
def test_no_part_is_empty_and_duplicates_never_part(hashes, valid, test):
    twice = np.array(hashes * 2, np.uint64)
    parts = split_by_hash(twice, valid_fraction=valid, test_fraction=test)
    assert set(parts.tolist()) == {0, 1, 2}
    assert (parts[: len(hashes)] == parts[len(hashes) :]).all()


def test_a_part_depends_on_the_protein_alone_and_has_about_its_share():
    hashes = np.random.default_rng(0).integers(0, 2**64, 5000, dtype=np.uint64)
    parts = split_by_hash(hashes, valid_fraction=0.1, test_fraction=0.2)
    fewer = split_by_hash(hashes[::3], valid_fraction=0.1, test_fraction=0.2)
    assert (parts[::3] == fewer).all()
    assert np.bincount(parts) / 5000 == pytest.approx([0.7, 0.1, 0.2], abs=0.02)


def test_there_may_be_no_test_part():
    hashes = np.arange(20, dtype=np.uint64) << np.uint64(59)
    assert set(split_by_hash(hashes, valid_fraction=0.1, test_fraction=0).tolist()) == {0, 1}


def by_column(cells, hashes=None):
    hashes = [place << 60 for place in range(len(cells))] if hashes is None else hashes
    rows = range(1, len(cells) + 1)
    return split_by_column(cells, rows, np.array(hashes, np.uint64), "t.csv, column 's'", 0.1)


def test_a_column_names_the_parts_in_the_words_of_many():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        found = by_column(["train", "Training", "TRAIN ", "val", "dev", "valid", "test"])
    assert found.tolist() == [0, 0, 0, 1, 1, 1, 2]


def test_where_none_is_called_valid_some_of_train_are_and_it_is_said():
    with pytest.warns(SplitWarning, match="calls none valid; 2 of 5 proteins of train"):
        found = by_column(["train"] * 5 + ["test"])
    assert found.tolist() == [1, 1, 0, 0, 0, 2]


def test_a_sequence_in_two_parts_is_said():
    with pytest.warns(SplitWarning, match="a sequence is in more than one part"):
        by_column(["train", "train", "train", "valid", "test"], [1, 2, 3, 4, 1])


def test_a_cell_that_names_no_part_is_a_sentence():
    with pytest.raises(
        DataError, match="column 's', row 2: expected train, valid or test; got 'x'"
    ):
        by_column(["train", "x"])
    with pytest.raises(DataError, match="fewer than three proteins are called train"):
        by_column(["train", "valid", "test"])
