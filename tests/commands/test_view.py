"""The command view: a page, and lines about what is on it."""

import numpy as np
import pytest
from click.testing import CliRunner
from pdb_files import protein
from random_models import esm1b

from mlx_esm_kernels.commands import view
from mlx_esm_kernels.weights import save_weights


@pytest.fixture
def place(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "one.pdb").write_text(protein("MKTAYIAKQR" * 3))
    return tmp_path


def run(*arguments):
    return CliRunner().invoke(view.command, list(arguments))


def test_it_writes_a_page_and_says_what_is_on_it(place):
    save_weights("w.safetensors", esm1b())
    result = run("one.pdb", "one.pdb", "-o", "p.html", "--weights-file", "w.safetensors")
    assert result.exit_code == 0, result.output
    assert "one: 1 chain, 30 residues; chain A: long-range precision " in result.output
    assert "30 C-alphas on one, RMSD 0.00 Å" in result.output
    assert "open p.html in a browser" in result.output
    assert (place / "p.html").read_text("utf-8").startswith("<!doctype html>")


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (("one.pdb", "-o", "p.png"), "p.png must end in .html"),
        (("one.pdb", "-o", "no/p.html"), "there is no folder no"),
        (("none.pdb", "-o", "p.html"), "none.pdb does not exist"),
        (("p.fasta", "-o", "p.html"), "p.fasta has no atoms; expected a structure"),
        (("one.pdb", "-o", "p.html", "--contacts", "m.npz", "--weights-file", "w"), "Give either"),
    ],
)
def test_what_cannot_be_has_one_sentence_and_no_page(place, arguments, sentence):
    (place / "p.fasta").write_text(">p\nMKTAYI\n")
    np.savez("m.npz", contacts_1=np.zeros((3, 3)))
    result = run(*arguments)
    assert result.exit_code != 0
    assert sentence in result.output
    assert "Traceback" not in result.output
    assert not (place / "p.html").exists()
