"""`score --html`: a page with the numbers of the csv file."""

import csv
import json
import re
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner
from random_models import esm1, esm1b

from mlx_esm_kernels import load_model, save_weights, score_variants
from mlx_esm_kernels.commands import score
from mlx_esm_kernels.data.residue_classes import RESIDUE_CLASSES

SEQUENCE = "HPETLVKVKD"
LETTERS = "".join(RESIDUE_CLASSES.values())
FLAGS = ["--sequence", SEQUENCE, "--all-single", "--dms-output", "all.csv", "--offset-idx", "24"]
FLAGS += ["--html", "all.html"]


@pytest.fixture
def place(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    save_weights("a.safetensors", esm1b())
    save_weights("b.safetensors", esm1(seed=1))
    return tmp_path


def done(*arguments):
    result = CliRunner().invoke(score.command, ["--weights-file", *arguments])
    assert result.exit_code == 0, result.output
    return result.stdout


def on_page():
    """Scores by mutant, as the page has them: the mean, and those of each model."""
    data = json.loads(
        re.search(r'id="data">(.*?)</script>', Path("all.html").read_text("utf-8"))[1]
    )
    scores = [data["scores"], *(model["scores"] for model in data["models"])]
    names = [f"{one}{i}{new}" for i, one in enumerate(SEQUENCE, 24) for new in LETTERS]
    return {
        name: values for name, *values in zip(names, *scores, strict=True) if values[0] is not None
    }


def in_table():
    with open("all.csv", encoding="utf-8") as file:
        _, *rows = csv.reader(file)
    return {name: [float(value) for value in values] for name, *values in rows}


@pytest.mark.parametrize("strategy", ["wt-marginals", "masked-marginals"])
def test_the_page_has_the_numbers_of_the_table(place, strategy):
    said = done("a.safetensors", *FLAGS, "--scoring-strategy", strategy)
    assert "🔭 open all.html in a browser" in said
    assert Path("all.png").exists()
    expected = in_table()
    assert on_page() == {name: pytest.approx(some, abs=6e-5) for name, some in expected.items()}
    text = Path("all.html").read_text("utf-8")
    assert f"10 residues, numbered from 24 to 33; {strategy}; a.safetensors." in text
    assert "The scores are in all.csv, too." in text


def test_of_several_models_it_has_their_mean_and_each(place):
    done("a.safetensors", "b.safetensors", *FLAGS)
    for name, (mean, *each) in on_page().items():
        assert each == pytest.approx(in_table()[name], abs=6e-5)
        assert mean == pytest.approx(np.mean(in_table()[name]), abs=2e-4)
    assert "mean of 2 models" in Path("all.html").read_text("utf-8")


def test_pseudo_perplexity_is_shown_against_the_wild_type(place, monkeypatch):
    drawn = []
    monkeypatch.setattr(score, "draw_substitutions", lambda *given, **how: drawn.append(given[2]))
    done("a.safetensors", *FLAGS, "--scoring-strategy", "pseudo-perplexity")
    model = load_model("a.safetensors")
    own = score_variants(model, SEQUENCE, ["WT"], strategy="pseudo-perplexity")[0]
    shown, table = on_page(), in_table()
    assert {name: some[0] - own for name, some in table.items()} == {
        name: pytest.approx(some[0], abs=2e-4) for name, some in shown.items()
    }
    on_picture = drawn[0][np.isfinite(drawn[0])]
    assert sorted(on_picture) == pytest.approx(sorted(x for x, *_ in shown.values()), abs=2e-4)
    assert "where that of the wild type is not taken off." in Path("all.html").read_text("utf-8")


def test_a_page_that_is_not_finished_leaves_the_old_one(place, monkeypatch):
    Path("all.html").write_text("precious")

    def full(path, *arguments, **named):
        with path.open("w") as file:
            file.write("half")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(type(place), "write_text", full)
    result = CliRunner().invoke(score.command, ["--weights-file", "a.safetensors", *FLAGS])
    assert result.exit_code == 1
    assert "all.html cannot be written: No space left on device" in result.stderr
    monkeypatch.undo()
    assert (place / "all.html").read_text() == "precious"
    assert not list(place.glob(".all.html*"))


def test_without_the_flag_there_is_no_page(place):
    done("a.safetensors", *FLAGS[:-2])
    assert not Path("all.html").exists()
