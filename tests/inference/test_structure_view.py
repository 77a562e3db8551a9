"""What a page of structures holds and says."""

import json
import re

import numpy as np
import pytest
from html_reading import Reader
from pdb_files import protein
from random_models import esm1b

from mlx_esm_kernels import view
from mlx_esm_kernels.inference.contacts import contact_map
from mlx_esm_kernels.system.errors import DataError

SEQUENCE = "MKTAYIAKQRGWDEMKTAYIAKQRGWDEMK"


def shown(page):
    return json.loads(re.search(r'id="data">(.*?)</script>', page.page, re.S)[1])["structures"]


@pytest.fixture
def place(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "one.pdb").write_text(protein(SEQUENCE))
    (tmp_path / "two.pdb").write_text(protein(SEQUENCE, "B"))
    return tmp_path


def save_maps(path, *maps):
    np.savez(
        path,
        names=np.array(["p"] * len(maps)),
        **{f"contacts_{i}": m for i, m in enumerate(maps, 1)},
    )


def test_a_file_a_text_and_a_folder_are_the_same_page(place):
    one = view("one.pdb")
    assert one.lines == ("one: 1 chain, 30 residues",)
    assert shown(one)[0]["chains"][0]["sequence"] == SEQUENCE
    assert shown(view(protein(SEQUENCE)))[0]["chains"] == shown(one)[0]["chains"]
    both = view(place)
    assert [structure["name"] for structure in shown(both)] == ["one", "two"]
    assert both.lines[1] == "two: 1 chain, 30 residues; 30 C-alphas on one, RMSD 0.00 Å"


def test_the_page_asks_for_nothing_and_its_data_cannot_end_its_script(place):
    (place / "<script>alert(1)<").write_text(protein(SEQUENCE))
    page = view("<script>alert(1)<").page
    assert "<script>alert(1)" not in page
    outside = re.sub(r"<script>.*?</script>", "", page, flags=re.S)
    assert not re.search(
        r"(src|href|url)\s*[=(]", re.sub(r'id="data">.*?</script>', "", outside, flags=re.S)
    )


def test_a_notebook_shows_the_page_in_a_frame(place):
    html = view("one.pdb")._repr_html_()
    assert html.startswith("<iframe")
    assert "&lt;!doctype html&gt;" in html


def test_the_frame_holds_the_very_page(place):
    (place / "it's & <b>.pdb").write_text(protein(SEQUENCE))
    page = view("it's & <b>.pdb")
    ((tag, attributes),) = Reader(page._repr_html_()).elements
    assert tag == "iframe"
    assert attributes["srcdoc"] == page.page


def test_contacts_of_a_file_are_laid_over_the_chain_of_their_size(place):
    exact = np.random.default_rng(0).random((30, 30), np.float32)
    save_maps("maps.npz", np.zeros((7, 7)), exact)
    (structure,) = shown(view("one.pdb", contacts="maps.npz"))
    assert structure["contacts"]["predicted"] == (100 * exact).round().astype(int).tolist()
    assert structure["contacts"]["truth"][0].startswith("11")
    assert structure["contacts"]["precision"].startswith("long-range precision 0.00 at L")


def test_a_map_at_hand_is_laid_over_it_as_that_of_a_file(place):
    one = np.random.default_rng(0).random((30, 30), np.float32)
    save_maps("maps.npz", one)
    expected = view("one.pdb", contacts="maps.npz").page
    assert view("one.pdb", contacts=one).page == expected
    assert view("one.pdb", contacts=one.tolist()).page == expected


@pytest.mark.parametrize(
    "wrong",
    [
        np.zeros(30),
        np.zeros((30, 29)),
        np.full((30, 30), np.nan),
        2 * np.eye(30),
        -np.eye(30),
        "abc",
    ],
)
def test_what_is_no_map_is_refused(place, wrong):
    with pytest.raises(DataError, match=r"contacts must be a path|does not exist"):
        view("one.pdb", contacts=wrong)


def test_contacts_of_a_whole_sequence_are_cut_to_its_residues_with_coordinates(place):
    whole = "SEQRES   1 A    4  MET LYS THR ALA\n"
    (place / "gap.pdb").write_text(whole + protein("MKT").replace("THR A   3", "ALA A   4"))
    predicted = np.arange(16.0).reshape(4, 4) / 16
    save_maps("maps.npz", predicted)
    (structure,) = shown(view("gap.pdb", contacts="maps.npz"))
    expected = (100 * predicted[np.ix_([0, 1, 3], [0, 1, 3])]).round().astype(int)
    assert structure["contacts"]["predicted"] == expected.tolist()
    assert "no residues are 24 apart" in structure["contacts"]["precision"]


def test_contacts_of_a_model_are_those_that_it_predicts(place):
    model = esm1b()
    (structure,) = shown(view("one.pdb", model=model))
    expected = np.array(contact_map(model, model.alphabet.encode(SEQUENCE), "window"))
    assert structure["contacts"]["predicted"] == (100 * expected).round().astype(int).tolist()


@pytest.mark.parametrize(
    ("arguments", "options", "sentence"),
    [
        ((), {}, "expected at least one structure"),
        (("nowhere.pdb",), {}, "nowhere.pdb"),
        (("empty",), {}, "empty has no structures in it"),
        (("one.pdb",), {"contacts": "one.pdb"}, "one.pdb is not an .npz of contact maps"),
        (("one.pdb",), {"contacts": "none.npz"}, "none.npz does not exist"),
        (("one.pdb",), {"contacts": "small.npz"}, r"No contact map .*A: 30 residues.*have 7"),
        (("one.pdb",), {"contacts": "small.npz", "chain": "Z"}, "one has no protein chain Z"),
        (("one.pdb",), {"contacts": "small.npz", "model": esm1b()}, "or a model, not both"),
        (("one.pdb",), {"model_number": 2}, "has 1 model; there is no model 2"),
    ],
)  # fmt: skip
def test_what_cannot_be_shown_has_one_sentence(place, arguments, options, sentence):
    (place / "empty").mkdir()
    save_maps("small.npz", np.zeros((7, 7)))
    with pytest.raises(DataError, match=sentence):
        view(*arguments, **options)
