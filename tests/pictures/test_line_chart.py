"""Charts of a page: all that is drawn is within the picture, and a long line stays a short text."""

import re

from html_reading import Reader
from hypothesis import given
from hypothesis import strategies as st

from mlx_esm_kernels.pictures.line_chart import HEIGHT, WIDTH, Chart, Level, Line

VALUES = st.floats(-1e12, 1e12) | st.floats(-1, 1) | st.integers(-3, 3).map(float)


@given(
    st.lists(VALUES, min_size=1, max_size=600), st.integers(0, 10**6), st.lists(VALUES, max_size=2)
)
def test_whatever_the_values_all_is_within_the_picture(values, start, levels):
    pairs = [(start + 10 * i, value) for i, value in enumerate(values)]
    styles = [Level(f"level {number}", "level-a", value) for number, value in enumerate(levels)]
    page = Chart("Values", "", [Line("a", "main", pairs, True)], styles).html()
    read = Reader(page)
    assert "nan" not in page
    assert "inf" not in page
    for _, has in read.elements:
        for key, most in (("cx", WIDTH), ("cy", HEIGHT)):
            assert 0 <= float(has.get(key, 0)) <= most
        for x, y in re.findall(r"(\S+),(\S+)", has.get("points", "")):
            assert 0 <= float(x) <= WIDTH
            assert 0 <= float(y) <= HEIGHT


def test_a_higher_value_is_drawn_higher_and_a_later_one_further_right():
    page = Chart("Values", "", [Line("a", "main", [(0, 1.0), (5, 2.0), (10, 4.0)])]).html()
    points = re.search(r'points="([^"]*)"', page)[1].split()
    (x0, y0), (x1, y1), (x2, y2) = (map(float, point.split(",")) for point in points)
    assert x1 - x0 == x2 - x1 > 0
    assert y0 > y1 > y2
    assert round((y1 - y2) / (y0 - y1), 1) == 2


def test_a_long_line_is_thinned_to_means_and_keeps_its_ends():
    pairs = [(i, float(i % 2)) for i in range(10_001)]
    page = Chart("Values", "", [Line("a", "main", pairs)]).html()
    points = re.search(r'points="([^"]*)"', page)[1].split()
    assert 200 <= len(points) <= 260
    heights = {float(point.split(",")[1]) for point in points[1:-1]}
    assert max(heights) - min(heights) < 20


def test_the_keyboard_comes_to_the_first_the_last_and_the_lowest():
    pairs = [(i, 5.0 + (i % 7)) for i in range(300)]
    pairs[123] = (123, 1.0)
    read = Reader(Chart("Values", "", [Line("a", "main", pairs, True)]).html())
    told = [has["aria-label"] for tag, has in read.elements if tag == "g" and "tabindex" in has]
    assert len(told) <= 10
    assert {"step 0: 5", "step 123: 1", "step 299: 10"} <= set(told)
