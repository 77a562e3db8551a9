"""The page of structures as a person has it: in a browser, with a mouse, a keyboard, a reader.

conftest.py says what that needs.
"""

import hashlib

import matplotlib.image
import numpy as np
import pytest
from browser import WIDTHS, serious_findings
from pdb_files import atom, protein

from mlx_esm_kernels import view

SEQUENCE = "MKTAYIAKQRGWDEFLNPSVMKTAYIAKQRGWDEFLNPSV"
pytestmark = pytest.mark.slow

SELECTED = '[role=option][aria-selected="true"]'


@pytest.fixture(scope="module")
def pages(tmp_path_factory):
    """One prediction with a ligand, and two structures with contacts."""
    place = tmp_path_factory.mktemp("pages")
    turn = 0.64 * np.arange(40)  # 3.8 angstrom from one to the next, in four rounds
    ring = np.stack([6 * np.cos(turn), 6 * np.sin(turn), turn], axis=-1)
    values = np.linspace(30, 99, 40)
    lines = protein(SEQUENCE, positions=ring).splitlines(keepends=True)
    predicted = "TITLE     ALPHAFOLD PREDICTION\n" + "".join(
        f"{line[:60]}{values[int(line[22:26]) - 1]:6.2f}{line[66:]}" if line[0] == "A" else line
        for line in lines
    )
    ligand = "".join(
        atom(f"C{i}", "LIG", "A", 200, (1.4 * i, 0, 10), hetero=True) for i in range(4)
    )
    (place / "first.pdb").write_text(predicted + ligand)
    (place / "second.pdb").write_text(
        protein(SEQUENCE, "B", ring + 5) + protein("GGWW", "C", ring[:4] + 60)
    )
    np.savez(place / "maps.npz", contacts_1=np.random.default_rng(0).random((40, 40)))
    view(place / "first.pdb").save(place / "one.html")
    view(place / "first.pdb", place / "second.pdb", contacts=place / "maps.npz").save(
        place / "two.html"
    )
    few = range(20)
    for name, atoms in {
        "trace.html": [atom("CA", "ALA", "A", i + 1, ring[i]) for i in few],
        "no-c-alphas.html": [atom("CB", "ALA", "A", i + 1, ring[i]) for i in few],
        "nucleotides.html": [
            atom(what, "DA", "A", i + 1, ring[i] * 1.6 + (1.2 * k, 0, 0))
            for i in few
            for k, what in enumerate(("P", "O5'", "C5'", "C4'", "C3'", "O3'"))
        ],
        "ligands.html": [atom("ZN", "ZN", "A", 9 * i, ring[i] * 5, hetero=True) for i in few],
    }.items():
        view("".join(atoms)).save(place / name)
    return place


@pytest.fixture
def open_page(new_page, pages):
    """Open one of them."""

    def opened(name, size="wide", scheme="light"):
        page = new_page(size, scheme)
        page.goto((pages / name).as_uri())
        page.wait_for_function("window.structurePage !== undefined")
        settle(page)
        return page

    return opened


def settle(page):
    """Wait until the viewers have drawn."""
    page.evaluate("() => new Promise(done => requestAnimationFrame(() => setTimeout(done, 150)))")


def picture(page, number=0):
    """(height, width, 3) from 0 to 1: what is to be seen in a viewer."""
    from io import BytesIO

    settle(page)
    png = page.locator(".viewer").nth(number).screenshot()
    return matplotlib.image.imread(BytesIO(png), format="png")[..., :3]


def drawn(image):
    """The share of pixels that are not of the background."""
    background = image[2, 2]
    return (np.abs(image - background).max(axis=-1) > 0.1).mean()


@pytest.mark.parametrize("size", WIDTHS)
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_the_structure_is_drawn_in_the_middle_and_the_page_fits(open_page, size, scheme):
    page = open_page("one.html", size, scheme)
    image = picture(page)
    height, width, _ = image.shape
    assert drawn(image) > 0.01
    assert drawn(image[height // 4 : -height // 4, width // 4 : -width // 4]) > drawn(image)
    assert image[2, 2].mean() > 0.9 if scheme == "light" else image[2, 2].mean() < 0.2
    assert page.evaluate("document.documentElement.scrollWidth") <= WIDTHS[size][0]


@pytest.mark.parametrize(
    "name", ["trace.html", "no-c-alphas.html", "nucleotides.html", "ligands.html"]
)
def test_what_has_no_backbone_of_a_protein_is_drawn_too(open_page, name):
    assert drawn(picture(open_page(name))) > 0.001


def test_each_colouring_looks_different_and_has_its_legend(open_page):
    page = open_page("one.html")
    keys = page.locator("#colour option").evaluate_all("options => options.map(o => o.value)")
    assert keys == ["chain", "fold", "hydrophobicity", "confidence"]
    assert page.locator("#colour").input_value() == "confidence"
    seen = set()
    for key in keys:
        page.locator("#colour").select_option(key)
        image = picture(page)
        assert drawn(image) > 0.01
        seen.add(
            (hashlib.sha256(image.tobytes()).hexdigest(), page.locator("#legend").inner_text())
        )
    assert len({image for image, _ in seen}) == len({legend for _, legend in seen}) == 4
    assert "very high (over 90)" in page.locator("#legend").inner_text()


def test_a_click_on_a_letter_selects_the_residue_in_the_structure(open_page):
    page = open_page("one.html")
    before = picture(page)
    page.locator("#r-0-0-4").click()
    assert (
        page.locator("#selected").inner_text() == "TYR 5, chain A, coil, confidence 37, very low."
    )
    assert np.abs(picture(page) - before).max() > 0.3
    assert (
        page.evaluate(
            "structurePage.viewers()[0].viewer.selectedAtoms({chain: '0', resi: 5}).length"
        )
        == 5
    )


def test_a_click_in_the_structure_selects_the_letter(open_page):
    page = open_page("one.html")
    # Of a residue that nothing hides a click on its C-alpha is of it or of a neighbour.
    found = page.evaluate("""() => {
        const viewer = structurePage.viewers()[0].viewer;
        const atoms = viewer.selectedAtoms({atom: "CA", chain: "0"});
        return atoms.map(a => [a.resi, viewer.modelToScreen(a)]);
    }""")
    selected = []
    for number, where in found[::6]:
        page.mouse.click(where["x"], where["y"])
        settle(page)
        if page.locator(SELECTED).count():
            place = int(page.locator(SELECTED).get_attribute("id").split("-")[-1]) + 1
            selected.append(abs(place - number) <= 1)
            assert page.locator("#selected").inner_text().split(",")[0].endswith(f" {place}")
    assert sum(selected) >= 3


def test_the_keyboard_selects_from_both_sides(open_page):
    page = open_page("one.html")
    page.locator(".sequence").first.focus()
    for key, place in [
        ("ArrowRight", 1),
        ("ArrowDown", 11),
        ("ArrowLeft", 10),
        ("End", 40),
        ("Home", 1),
    ]:
        page.keyboard.press(key)
        assert page.locator(SELECTED).get_attribute("id") == f"r-0-0-{place - 1}"
        active = page.locator(".sequence").first.get_attribute("aria-activedescendant")
        assert active == f"r-0-0-{place - 1}"
    before = picture(page)
    page.keyboard.press("Enter")
    assert np.abs(picture(page) - before).max() > 0.3  # it came nearer
    page.locator(".viewer").focus()
    page.keyboard.press("ArrowRight")
    assert page.locator(SELECTED).get_attribute("id") == "r-0-0-1"
    assert page.locator("#selected").get_attribute("role") == "status"
    assert page.locator("#selected").inner_text().startswith("LYS 2, chain A")


def test_everything_is_reached_by_tab(open_page):
    page = open_page("two.html")
    reached = set()
    for _ in range(30):
        page.keyboard.press("Tab")
        reached.add(page.evaluate("document.activeElement.id || document.activeElement.className"))
    assert {"colour", "layout", "spin", "png", "theme", "viewer", "sequence"} <= reached


def test_several_structures_are_side_by_side_or_over_each_other(open_page):
    page = open_page("two.html")
    assert page.locator(".viewer").count() == 2
    assert all(drawn(picture(page, i)) > 0.005 for i in range(2))
    assert "40 C-alphas on first, RMSD 0.00 Å" in page.locator("figcaption").nth(1).inner_text()
    page.locator("#layout").select_option("over")
    settle(page)
    assert page.locator(".viewer").count() == 1
    assert page.evaluate("structurePage.viewers()[0].models.size") == 2
    # Superposed: C-alphas of one lie on those of the other.
    apart = page.evaluate("""() => {
        const models = [...structurePage.viewers()[0].models.values()];
        const [a, b] = models.map(m => m.selectedAtoms({atom: "CA", chain: "0", resi: 7})[0]);
        return Math.hypot(a.x - b.x, a.y - b.y, a.z - b.z);
    }""")
    assert apart < 0.02
    page.locator("#shown input").first.uncheck()
    settle(page)
    assert page.evaluate("structurePage.viewers()[0].models.size") == 1


def test_contacts_are_a_map_and_lines(open_page):
    page = open_page("two.html")
    assert page.locator("canvas.map").count() == 2
    assert "long-range precision " in page.locator("canvas.map").first.get_attribute("aria-label")
    before = picture(page)
    page.get_by_label("Draw the").first.check()
    assert np.abs(picture(page) - before).max() > 0.3


def test_it_stands_still_until_it_is_told_to_spin(open_page):
    page = open_page("one.html")
    seen = "JSON.stringify(structurePage.viewers()[0].viewer.getView())"
    before = page.evaluate(seen)
    page.wait_for_timeout(300)
    assert page.evaluate(seen) == before
    page.locator("#spin").click()
    page.wait_for_function(f"{seen} !== {before!r}")
    page.locator("#spin").click()
    assert page.locator("#spin").get_attribute("aria-pressed") == "false"


def test_the_button_saves_a_picture_of_what_is_seen(open_page, tmp_path):
    page = open_page("one.html")
    with page.expect_download() as download:
        page.locator("#png").click()
    download.value.save_as(tmp_path / "saved.png")
    assert download.value.suggested_filename == "first.png"
    assert drawn(matplotlib.image.imread(tmp_path / "saved.png")[..., :3]) > 0.01


@pytest.mark.parametrize("name", ["one.html", "two.html"])
@pytest.mark.parametrize("size", WIDTHS)
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_axe_finds_nothing_serious(open_page, name, size, scheme):
    page = open_page(name, size, scheme)
    page.locator("#r-0-0-4").click()
    assert serious_findings(page) == []
