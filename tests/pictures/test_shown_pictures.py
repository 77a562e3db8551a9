"""Pictures that a notebook shows by itself."""

import io

import numpy as np
import pytest
from PIL import Image

from mlx_esm_kernels import confidence_picture, contact_picture, substitution_picture


def pixels(figure):
    """(height, width, 3) of what a notebook shows, 0 black and 255 white."""
    with Image.open(io.BytesIO(figure._repr_png_())) as image:
        assert image.format == "PNG"
        return np.array(image.convert("RGB")).astype(int)


def test_a_contact_is_darker_than_none():
    none = np.zeros((30, 30))
    one = none.copy()
    one[3:9, 20:26] = 1
    assert pixels(contact_picture(one)).sum() < pixels(contact_picture(none)).sum()


def test_a_harmful_substitution_is_red_and_a_favourable_one_blue():
    def drawn(score):
        scores = np.full((20, 8), np.nan)
        scores[:10] = score
        return pixels(substitution_picture("MKTAYIAK", scores)).sum(axis=(0, 1))

    red, _, blue = drawn(-1) - drawn(1)
    assert red > 0 > blue


def test_the_surer_a_residue_the_darker_it_is():
    def drawn(*confidence):
        return pixels(confidence_picture(["M" * 10], [np.full(10, c) for c in confidence])).sum()

    assert drawn(0.9) < drawn(0.5) < drawn(0.1)


def test_a_long_protein_goes_on_in_the_next_line():
    def heights(*lengths):
        figure = confidence_picture(["A" * n for n in lengths], [np.ones(n) for n in lengths])
        return figure.get_size_inches()[1]

    assert heights(61) == heights(60, 60) > heights(60)
    texts = confidence_picture(["C" * 60 + "D"], [np.ones(61)]).axes[0].texts
    assert [(text.get_text(), text.get_position()) for text in texts[-2:]] == [
        ("C", (59, 0)),
        ("D", (0, 1)),
    ]


@pytest.mark.parametrize(
    ("sequences", "confidence", "names"),
    [
        ([], [], None),
        (["MK"], [np.ones(3)], None),
        (["MK"], [np.ones(2), np.ones(2)], None),
        (["MK"], [np.ones(2)], ["a", "b"]),
    ],
)
def test_numbers_that_do_not_fit_the_proteins_are_refused(sequences, confidence, names):
    with pytest.raises(ValueError, match="a number for each residue"):
        confidence_picture(sequences, confidence, names=names)
