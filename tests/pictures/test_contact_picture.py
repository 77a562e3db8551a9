"""The picture of a contact map: every contact is on it, however many residues there are."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from mlx_esm_kernels.pictures import contacts
from mlx_esm_kernels.pictures.contacts import ContactPicture


@given(residues=st.integers(1, 60), most=st.integers(1, 20), data=st.data())
def test_a_point_has_the_largest_of_its_square_however_the_rows_come(residues, most, data):
    rows = np.random.default_rng(residues).random((residues, residues), np.float32)
    before, contacts.MOST_POINTS = contacts.MOST_POINTS, most
    try:
        picture = ContactPicture(residues)
    finally:
        contacts.MOST_POINTS = before
    come = 0
    while come < residues:
        count = data.draw(st.integers(1, residues - come))
        picture.add(rows[come : come + count])
        come += count
    step = -(-residues // most)
    starts = range(0, residues, step)
    expected = [[rows[i : i + step, j : j + step].max() for j in starts] for i in starts]
    assert np.array_equal(picture._points, expected)
    assert len(picture._points) <= most


def test_one_contact_of_thousands_of_residues_is_seen(tmp_path):
    def drawn(contact):
        picture = ContactPicture(5000)
        for block in range(50):
            rows = np.zeros((100, 5000), np.float32)
            if contact and block == 7:
                rows[33:40, 4000:4007] = 1
            picture.add(rows)
        picture.draw(tmp_path / "p.png", title="x")
        with Image.open(tmp_path / "p.png") as image:
            return np.array(image.convert("RGB"))

    assert (drawn(True) != drawn(False)).any()
