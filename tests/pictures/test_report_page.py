"""The page of a run as a person has it: in a browser, at any width, light and dark, on paper."""

import numpy as np
import pytest
from browser import WIDTHS, serious_findings
from html_reading import Reader

from mlx_esm_kernels.pictures.report_page import RunPage, ShownSample

RESIDUES = "ACDEFGHIKLMNPQRSTVWY"
CLASSES = {
    "hydrophobic": "AILMV",
    "aromatic": "FWY",
    "polar": "NQST",
    "positive": "HKR",
    "negative": "DE",
    "special": "CGP",
}
SCHEMES = ("light", "dark")
FOCUSED = "(at => at.getAttribute('aria-label') || at.innerText)(document.activeElement)"


def made_page(steps=400):
    rng = np.random.default_rng(0)
    confusion = rng.dirichlet(np.ones(20), size=20)
    confusion[3] = np.nan
    confusion[0] = [0.81, *[0.01] * 19]
    rows = [
        {
            "step": 10 * i,
            "train_loss": 3 - i / steps,
            "learning_rate": 1e-3,
            "residues_per_second": 4e4 + i,
            "waiting": 0.0,
            **(
                {"valid_loss": 2.9 - i / steps, "valid_perplexity": 19 - i / 40}
                if i % 40 == 0
                else {}
            ),
        }
        for i in range(steps)
    ]
    contacts = np.triu(rng.random((80, 80)), 1).astype(np.float32) ** 4
    samples = [
        ShownSample(
            "".join(rng.choice(list(RESIDUES), 80)),
            rng.random(80),
            "80 residues",
            contacts + contacts.T if number < 2 else None,
        )
        for number in range(3)
    ]
    return RunPage(
        name="a-run-with-quite-a-long-name-" * 3,
        subtitle="A training run in /" + "a-folder/" * 20,
        figures=[("steps", "4,000"), ("lowest held-out perplexity", "10.00, at step 3,600")],
        rows=rows,
        levels={"residue frequencies": 17.9, "neighbours": 16.8, "entropy floor": 3.28},
        confusion=confusion,
        counts=dict.fromkeys(RESIDUES, 500),
        confusion_note="Over 10,000 masked residues.",
        samples=samples,
        sampled="From masks alone.",
        classes=CLASSES,
        config=f"data = '{'x' * 300}'\n",
        command="mlx-esm train --config /runs/sample-1/config.toml",
        missing={"neighbours": "Something has gone."},
    ).html()


def test_it_is_well_formed_and_says_the_numbers_in_words():
    page = Reader(made_page())
    assert page.count("figure", kind="map") == 2
    told = [has["title"] for _, has in page.elements if "title" in has]
    assert "A as A: 81.0%" in told
    assert told.count("not known") == 20
    assert "A 500 81.0% C 1.0%, D 1.0%, E 1.0%" in page.text
    labels = [
        has["aria-label"] for tag, has in page.elements if tag == "svg" and "aria-label" in has
    ]
    assert any("19 at step 0, 10 at step 3,600" in label for label in labels)
    # A long run takes no more of the page, and few stops of the tabulator key.
    assert len(made_page(20_000)) < 1.2 * len(made_page(400))
    assert sum("tabindex" in has for tag, has in page.elements if tag == "g") <= 50


@pytest.fixture
def open_page(new_page, tmp_path):
    def opened(size="wide", scheme="light"):
        (tmp_path / "report.html").write_text(made_page(), encoding="utf-8")
        page = new_page(size, scheme)
        page.goto((tmp_path / "report.html").as_uri())
        return page

    return opened


@pytest.mark.slow
@pytest.mark.parametrize("size", WIDTHS)
@pytest.mark.parametrize("scheme", SCHEMES)
def test_it_fits_and_axe_finds_nothing_serious(open_page, size, scheme):
    page = open_page(size, scheme)
    assert page.evaluate("document.documentElement.scrollWidth") <= WIDTHS[size][0]
    back = page.evaluate("getComputedStyle(document.body).backgroundColor")
    assert back == ("rgb(255, 255, 255)" if scheme == "light" else "rgb(18, 22, 28)")
    for text in page.locator(".chart svg text").all()[:3]:
        assert text.bounding_box()["height"] >= 9
    page.evaluate("document.querySelectorAll('details').forEach(d => d.open = true)")
    assert page.evaluate("document.documentElement.scrollWidth") <= WIDTHS[size][0]
    assert serious_findings(page) == []


@pytest.mark.slow
def test_the_keyboard_comes_to_values_and_tables(open_page):
    page = open_page()
    value = page.locator(".point .value").first
    assert not value.is_visible()
    reached = []
    for _ in range(120):
        page.keyboard.press("Tab")
        reached.append(page.evaluate(FOCUSED))
        if reached[-1] == "step 0: 19":
            assert value.is_visible()
    assert not value.is_visible()
    for text in ("Figures", "step 0: 19", "The same in words", "Command", "config.toml"):
        assert text in reached


@pytest.mark.slow
def test_a_mouse_over_a_point_shows_its_value(open_page):
    page = open_page()
    page.locator(".point .aim").nth(3).hover()
    assert page.locator(".point .value").nth(3).is_visible()


@pytest.mark.slow
def test_printed_it_is_light_and_has_no_links(open_page):
    page = open_page(scheme="dark")
    page.emulate_media(media="print", color_scheme="dark")
    assert page.evaluate("getComputedStyle(document.body).backgroundColor") == "rgb(255, 255, 255)"
    assert not page.locator("nav").is_visible()
    assert page.locator(".chart").first.is_visible()
