"""The page of all substitutions: what it says, and how a person has it in a browser."""

import json
import re

import numpy as np
import pytest
from browser import WIDTHS, serious_findings
from html_reading import Reader
from hypothesis import given, settings
from hypothesis import strategies as st

from mlx_esm_kernels.data.alphabet import STANDARD_RESIDUES
from mlx_esm_kernels.data.residue_classes import RESIDUE_CLASSES
from mlx_esm_kernels.pictures.substitution_map import SubstitutionMap
from mlx_esm_kernels.pictures.substitutions_page import substitutions_page

LETTERS = "".join(RESIDUE_CLASSES.values())
SCHEMES = ("light", "dark")
OFFSET = 24
SEQUENCE = "".join(np.random.default_rng(0).choice(list(STANDARD_RESIDUES), 130))


def drawn_scores(sequence, seed=0):
    """(20, L), rows as in STANDARD_RESIDUES."""
    scores = np.random.default_rng(seed).normal(-2, 2, (20, len(sequence))).round(4)
    for place, letter in enumerate(sequence):
        if letter in STANDARD_RESIDUES:
            scores[STANDARD_RESIDUES.index(letter), place] = np.nan
    return scores


def made_page(sequence=SEQUENCE, models=("a model",), offset=OFFSET):
    return substitutions_page(
        f"Substitutions of {'a-protein-with-quite-a-long-name-' * 3}",
        "Some residues.",
        sequence,
        {name: drawn_scores(sequence, seed) for seed, name in enumerate(models)},
        offset=offset,
        classes=RESIDUE_CLASSES,
        measure="log-odds, in nats",
        note="The scores are in all.csv, too.",
    )


def score_of(name, sequence=SEQUENCE, seeds=(0,), offset=OFFSET):
    """The score of `M1A`, the mean of what each seed draws."""
    place = int(name[1:-1]) - offset
    assert sequence[place] == name[0]
    row = STANDARD_RESIDUES.index(name[-1])
    return np.mean([drawn_scores(sequence, seed)[row, place] for seed in seeds])


def in_digits(value):
    return f"{value:.2f}".replace("-", "−")


def data_of(page):
    return json.loads(re.search(r'id="data">(.*?)</script>', page)[1])


def table_of(page, name):
    """The rows of a table, as texts."""
    body = page[page.index(f'aria-label="{name}"') :]
    body = body[body.index("<tbody>") : body.index("</tbody>")]
    return [re.findall(r"<t[hd][^>]*>(.*?)</t[hd]>", row) for row in body.split("</tr>")[:-1]]


def test_the_numbers_of_the_page_are_those_that_it_was_given():
    page = made_page(models=("a", "b"))
    data = data_of(page)
    for seeds, scores in (((0, 1), data["scores"]), ((1,), data["models"][1]["scores"])):
        for at, score in enumerate(scores):
            place, row = divmod(at, 20)
            if LETTERS[row] == SEQUENCE[place]:
                assert score is None
            else:
                name = f"{SEQUENCE[place]}{place + OFFSET}{LETTERS[row]}"
                assert score == pytest.approx(score_of(name, seeds=seeds), abs=2e-4)
    rows = table_of(page, "All numbers")
    assert [row[0] for row in rows] == [f"{one}{i}" for i, one in enumerate(SEQUENCE, OFFSET)]
    both = np.mean([drawn_scores(SEQUENCE, seed) for seed in (0, 1)], axis=0)
    for place, (_, mean, *cells) in enumerate(rows):
        known = both[:, place][~np.isnan(both[:, place])]
        assert float(mean.replace("−", "-")) == pytest.approx(known.mean(), abs=6e-3)
        assert cells.count("wild type") == 1
        assert cells.index("wild type") == LETTERS.index(SEQUENCE[place])


def test_the_best_and_the_worst_are_in_their_order():
    page = made_page(models=("a", "b"))
    both = np.mean([drawn_scores(SEQUENCE, seed) for seed in (0, 1)], axis=0)
    ascending = np.sort(both[~np.isnan(both)])
    for name, expected in (("Tolerated best", ascending[::-1]), ("Most damaging", ascending)):
        rows = table_of(page, name)
        assert len(rows) == 20
        for (mutant, mean, *each), value in zip(rows, expected, strict=False):
            assert score_of(mutant, seeds=(0, 1)) == pytest.approx(value, abs=2e-4)
            assert float(mean.replace("−", "-")) == pytest.approx(value, abs=6e-3)
            assert each == [in_digits(score_of(mutant, seeds=(seed,))) for seed in (0, 1)]
    means = np.nanmean(both, axis=0)
    places = [int(row[0][1:]) - OFFSET for row in table_of(page, "Most sensitive positions")]
    assert list(means[places]) == pytest.approx(np.sort(means)[:20], abs=2e-4)


@settings(deadline=None, max_examples=20)
@given(st.text(STANDARD_RESIDUES + "XBU", min_size=1, max_size=230), st.integers(-50, 2000))
def test_each_cell_is_drawn_once_in_its_place_and_colour(sequence, offset):
    order = [STANDARD_RESIDUES.index(one) for one in LETTERS]
    drawn = SubstitutionMap(sequence, offset, RESIDUE_CLASSES, drawn_scores(sequence)[order])
    rows = {f"{top + 0.5:g}": row for row, top in enumerate(drawn.tops)}
    found = np.full(drawn.scores.shape, np.nan)
    dots = []
    blocks = drawn.blocks().split('<div class="block"')[1:]
    for number, block in enumerate(blocks):
        for kind, share, d in re.findall(
            r'<path class="(low|high)" style="--p:(\d+)%" d="(.*?)"', block
        ):
            for column, y in re.findall(r"M(\d+) (\S+?)h1", d):
                at = rows[y], 100 * number + int(column)
                assert np.isnan(found[at])
                found[at] = int(share) / 100 * (-1 if kind == "low" else 1)
        for d in re.findall(r'<path class="wild" d="(.*?)"', block):
            places = re.findall(r"M(\S+) (\S+?)h0", d)
            dots += [(rows[y], 100 * number + int(float(x))) for x, y in places]
    expected = np.clip(drawn.scores / drawn.reach, -1, 1)
    assert np.allclose(found, expected, atol=0.05, equal_nan=True)
    assert sorted(dots) == sorted(map(tuple, np.argwhere(np.isnan(expected)).tolist()))
    Reader("".join(blocks).join(['<div class="block"', ""]).replace("{{", ""))


def test_a_long_protein_is_a_page_of_a_megabyte():
    sequence = "".join(np.random.default_rng(1).choice(list(STANDARD_RESIDUES), 1500))
    page = made_page(sequence)
    assert len(page.encode()) < 1_500_000
    assert Reader(page).count("div", kind="block") == 15


def test_names_from_outside_are_text_and_nothing_else():
    name = '</script><img src=x onerror="alert(1)">&{{data}}'
    page = made_page(models=(name, "b"))
    read = Reader(page)
    assert read.count("img") == 0
    assert read.count("script") == 2
    assert data_of(page)["models"][0]["name"] == name
    assert name in read.text


def test_it_may_ask_for_nothing():
    policy = 'http-equiv="Content-Security-Policy" content="default-src \'none\';'
    assert policy in made_page()
    assert not re.search(r"(src|href)=\"(?!#)", made_page())


@pytest.fixture
def open_page(new_page, tmp_path):
    def opened(size="wide", scheme="light", **made):
        (tmp_path / "all.html").write_text(made_page(**made), encoding="utf-8")
        page = new_page(size, scheme)
        page.goto((tmp_path / "all.html").as_uri())
        return page

    return opened


def said(page):
    return page.locator("#selected").inner_text()


def told(name, seeds=(0,)):
    """What is said of a substitution."""
    scores = np.mean([drawn_scores(SEQUENCE, seed) for seed in seeds], axis=0).round(4)
    score = score_of(name, seeds=seeds).round(4)
    rank = 1 + int((scores > score).sum())
    mean = np.nanmean(scores[:, int(name[1:-1]) - OFFSET])
    known = np.isfinite(scores).sum()
    place = f"rank {rank} of {known}; mean of the position {in_digits(mean)}"
    return f"{name} {in_digits(score)} ({place})"


def middle_of(page, place, row):
    """Where a cell is, in its block."""
    block = page.locator(".cells").nth(place // 100)
    unit = block.bounding_box()["height"] / data_of(page.content())["height"]
    top = data_of(page.content())["tops"][row]
    return block, {"x": (place % 100 + 0.5) * unit, "y": (top + 0.5) * unit}


@pytest.mark.slow
@pytest.mark.parametrize("place", [0, 57, 99, 100, 129])
def test_a_mouse_over_a_cell_says_its_number(open_page, place):
    page = open_page()
    for row in (0, 7, 19):
        block, where = middle_of(page, place, row)
        block.hover(position=where)
        if LETTERS[row] == SEQUENCE[place]:
            assert f"{SEQUENCE[place]}{place + OFFSET}, the wild type" in said(page)
        else:
            assert said(page) == told(f"{SEQUENCE[place]}{place + OFFSET}{LETTERS[row]}")
    assert page.locator(".here").count() == 1


@pytest.mark.slow
def test_several_models_say_what_each_of_them_has(open_page):
    page = open_page(models=("a", "b"))
    row = (LETTERS.index(SEQUENCE[3]) + 1) % 20
    name = f"{SEQUENCE[3]}{3 + OFFSET}{LETTERS[row]}"
    block, where = middle_of(page, 3, row)
    block.hover(position=where)
    each = [in_digits(score_of(name, seeds=(seed,))) for seed in (0, 1)]
    assert said(page) == f"{told(name, seeds=(0, 1))}; a: {each[0]}; b: {each[1]}"


@pytest.mark.slow
@pytest.mark.parametrize("size", WIDTHS)
def test_the_keyboard_goes_through_the_whole_protein(open_page, size):
    page = open_page(size)
    page.locator(".block").first.focus()
    for keys, place, row in [
        (["ArrowRight"], 0, 0),
        (["ArrowRight"] * 3, 3, 0),
        (["ArrowDown"] * 25, 3, 19),
        (["ArrowUp"] * 2, 3, 17),
        (["PageDown"], 103, 17),
        (["ArrowLeft"] * 4, 99, 17),
        (["End"], 129, 17),
        (["ArrowRight"], 129, 17),
        (["Home"], 0, 17),
    ]:
        for key in keys:
            page.keyboard.press(key)
        here = f"{SEQUENCE[place]}{place + OFFSET}"
        own = LETTERS[row] == SEQUENCE[place]
        expected = f"{here}, the wild type" if own else told(f"{here}{LETTERS[row]}")
        assert said(page).startswith(expected)
        focused = "[...document.querySelectorAll('.block')].indexOf(document.activeElement)"
        assert page.evaluate(focused) == place // 100
        cell, labels = (page.locator(one).first.bounding_box() for one in (".here", ".labels"))
        middle = cell["x"] + cell["width"] / 2
        assert labels["x"] + labels["width"] < middle < WIDTHS[size][0]
    assert page.locator("#selected").get_attribute("role") == "status"


@pytest.mark.slow
def test_one_can_go_to_a_substitution_or_a_position(open_page):
    page = open_page("narrow")
    other = next(one for one in "AC" if one != SEQUENCE[110])
    name = f"{SEQUENCE[110]}{110 + OFFSET}"
    wrong = next(one for one in "AC" if one != SEQUENCE[110])
    for text, answer in [
        (f"{name}{other}".lower(), told(f"{name}{other}")),
        (f"{110 + OFFSET}", f"{name}, mean of the position"),
        (f"{wrong}{110 + OFFSET}", f"Position {110 + OFFSET} is {SEQUENCE[110]}, not {wrong}."),
        ("1", f"There is no position 1; they go from {OFFSET} to {OFFSET + 129}."),
        (f"{name}Z", "Z is not one of the 20 residues."),
        ("<b>", "Expected a substitution such as M1A, or the number of a position."),
    ]:
        page.locator("#goal").fill(text)
        page.locator("#goal").press("Enter")
        assert said(page).startswith(answer)


@pytest.mark.slow
@pytest.mark.parametrize("size", WIDTHS)
@pytest.mark.parametrize("scheme", SCHEMES)
def test_it_fits_and_axe_finds_nothing_serious(open_page, size, scheme):
    models = ("a", "b/" + "a-folder/" * 20)
    page = open_page(size, scheme, sequence=SEQUENCE[:40], models=models)
    middle_of(page, 3, 3)[0].hover()
    back = page.evaluate("getComputedStyle(document.body).backgroundColor")
    assert back == ("rgb(255, 255, 255)" if scheme == "light" else "rgb(18, 22, 28)")
    page.evaluate("document.querySelectorAll('details').forEach(d => d.open = true)")
    assert page.evaluate("document.documentElement.scrollWidth") <= WIDTHS[size][0]
    assert serious_findings(page) == []


@pytest.mark.slow
def test_printed_it_is_light_and_a_block_is_as_wide_as_the_paper(open_page):
    page = open_page(scheme="dark")
    page.emulate_media(media="print", color_scheme="dark")
    assert page.evaluate("getComputedStyle(document.body).backgroundColor") == "rgb(255, 255, 255)"
    assert not page.locator("#find").is_visible()
    block = page.locator(".block").first
    drawn = block.locator(".cells").bounding_box()["width"]
    assert 600 < drawn + block.locator(".labels").bounding_box()["width"] < 718  # A4 less margins
