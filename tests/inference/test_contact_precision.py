"""Precision of predicted contacts: of the truth 1, of chance the density, of its opposite 0."""

import numpy as np
import pytest

from mlx_esm_kernels.inference.contact_precision import contacts_of, long_range_precision


def globule(length, seed=0):
    """(length, 3) positions, so dense that there are more long-range contacts than residues."""
    return np.random.default_rng(seed).uniform(0, 3.0 * length ** (1 / 3), size=(length, 3))


def test_contacts_are_pairs_nearer_than_8_angstrom_where_both_are_known():
    contacts = contacts_of(np.array([[0, 0, 0], [7.99, 0, 0], [8.01, 0, 0], [np.nan] * 3]))
    nan = np.nan
    expected = [[1, 1, 0, nan], [1, 1, 1, nan], [0, 1, 1, nan], [nan] * 4]
    np.testing.assert_array_equal(contacts, expected)


@pytest.mark.parametrize("share", [1, 5])
def test_a_map_has_precision_1_against_itself_and_0_against_its_opposite(share):
    contacts = contacts_of(globule(120))
    assert long_range_precision(contacts, contacts, share=share) == 1
    assert long_range_precision(1 - contacts, contacts, share=share) == 0


def test_a_random_map_has_the_density():
    contacts = contacts_of(globule(300))
    first, second = np.triu_indices(300, 24)
    density = contacts[first, second].mean()
    found = [
        long_range_precision(np.random.default_rng(seed).random((300, 300)), contacts)
        for seed in range(40)
    ]
    assert np.mean(found) == pytest.approx(density, abs=4 * np.sqrt(density / (300 * 40)))
    assert 0.02 < density < 0.5


def test_only_pairs_far_apart_in_the_sequence_and_known_count():
    length = 30
    contacts = np.ones((length, length))
    contacts[:, 29] = contacts[29] = np.nan
    predicted = np.zeros((length, length))
    predicted[0, 29] = predicted[0, 23] = 9.0  # unknown, and too near
    predicted[0, 24] = 8.0
    contacts[0, 24] = 0.0
    # Of the 15 pairs that are left all are taken, as there are fewer than 30.
    assert long_range_precision(predicted, contacts) == pytest.approx(14 / 15)
    assert long_range_precision(predicted, contacts, share=30) == 0


def test_places_tell_how_far_apart_residues_are():
    contacts = np.ones((4, 4))
    predicted = np.zeros((4, 4))
    assert long_range_precision(predicted, contacts) is None
    assert long_range_precision(predicted, contacts, [0, 1, 2, 30]) == 1


def test_equally_sure_pairs_are_taken_in_the_order_of_the_sequence():
    contacts = np.zeros((30, 30))
    contacts[0, 24:] = 1
    assert long_range_precision(np.ones((30, 30)), contacts, share=5) == 1


@pytest.mark.parametrize(
    ("predicted", "contacts", "options"),
    [
        (np.zeros((3, 4)), np.zeros((3, 3)), {}),
        (np.zeros((3, 3)), np.zeros((3, 3)), {"share": 0}),
        (np.zeros((3, 3)), np.zeros((3, 3)), {"places": [0, 1]}),
        (np.full((30, 30), np.nan), np.zeros((30, 30)), {}),
    ],
)
def test_what_cannot_be_counted_is_refused(predicted, contacts, options):
    with pytest.raises(ValueError, match="long_range_precision"):
        long_range_precision(predicted, contacts, **options)
