"""The contacts command: probabilities and maps, or a sentence."""

import os
import zipfile

import mlx.core as mx
import numpy as np
import pytest
from click.testing import CliRunner
from PIL import Image
from random_models import esm1, esm1b, esm2

from mlx_esm_kernels import load_model, predict_contacts, save_weights
from mlx_esm_kernels.commands import contacts
from mlx_esm_kernels.models import contact_rows
from mlx_esm_kernels.models import esm1 as esm1_module

PROTEINS = [("a/b 1", "MKTAYIAKQR"), ("a/b 1", "M"), ("c" * 300, "GAVLIKWDERTYPSNQHCMF")]


@pytest.fixture
def place(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    save_weights("w.safetensors", esm1b())
    (tmp_path / "p.fasta").write_text("".join(f">{n}\n{s}\n" for n, s in PROTEINS))
    return tmp_path


def run(*arguments):
    return CliRunner().invoke(contacts.command, ["--weights-file", "w.safetensors", *arguments])


@pytest.mark.parametrize("model", [esm1b(), esm1()])
@pytest.mark.parametrize(
    ("output", "npz", "picture"),
    [("maps", "maps/contacts.npz", "maps/contacts-{}.png"), ("m.npz", "m.npz", "m-{}.png")],
)
def test_each_protein_has_its_probabilities_and_a_map(place, model, output, npz, picture):
    save_weights("w.safetensors", model)
    result = run("p.fasta", "-o", output)
    assert result.exit_code == 0, result.output
    file = np.load(npz)
    assert file["names"].tolist() == [name for name, _ in PROTEINS]
    for number, (_, sequence) in enumerate(PROTEINS, start=1):
        tokens = model.alphabet.with_specials(model.alphabet.encode(sequence))
        expected = predict_contacts(load_model("w.safetensors"), mx.array(tokens))
        assert np.allclose(file[f"contacts_{number}"], np.array(expected), atol=1e-6)
        with Image.open(picture.format(number)) as image:
            assert image.format == "PNG"
    assert f"contacts of 3 proteins saved to {npz}" in result.stdout


def test_a_protein_that_is_too_long_is_seen_in_windows(place):
    (place / "long.fasta").write_text(">l\n" + "MKTAYIAKQR" * 9 + "\n")
    refused = run("long.fasta", "-o", "m.npz")
    assert refused.exit_code == 1
    assert "give a part of it, or see --long." in refused.output
    result = run("long.fasta", "-o", "m.npz", "--long", "window")
    assert result.exit_code == 0, result.output
    assert np.load("m.npz")["contacts_1"].shape == (90, 90)


def test_a_long_protein_is_written_and_drawn_some_rows_at_a_time(place, monkeypatch):
    save_weights("w.safetensors", esm2())
    (place / "long.fasta").write_text(">titin\n" + "MKTAYIAKQRGW" * 20 + "\n")
    assert run("long.fasta", "-o", "whole.npz").exit_code == 0
    monkeypatch.setattr(esm1_module, "_WHOLE_MAP", 0)
    monkeypatch.setattr(contact_rows, "_NUMBERS_AT_ONCE", 5000)
    result = run("long.fasta", "-o", "rows.npz")
    assert result.exit_code == 0, result.output
    assert "a protein of 240 residues is taken whole, and this model was trained" in result.stderr
    whole, rows = (np.load(f"{name}.npz")["contacts_1"] for name in ("whole", "rows"))
    assert rows.shape == (240, 240)
    assert np.allclose(rows, whole, atol=1e-6)
    with Image.open("whole-1.png") as one, Image.open("rows-1.png") as other:
        assert np.abs(np.array(one, int) - np.array(other, int)).max() <= 1


def test_one_long_header_does_not_cost_its_length_for_every_protein(place, monkeypatch):
    monkeypatch.setattr(contacts, "_MOST_NAME_BYTES", 4 * 300 * 2)
    result = run("p.fasta", "-o", "m.npz", "--no-png")
    assert result.exit_code == 0, result.output
    names = bytes(np.load("m.npz")["names"]).decode()
    assert names.split("\n")[:-1] == [name for name, _ in PROTEINS]


def test_a_header_may_have_any_letters(place):
    (place / "odd.fasta").write_text(">$x_1$ ^A \u86cb\u767d \\alpha {%}\nMKTAYIAK\n", "utf-8")
    result = run("odd.fasta", "-o", "m.npz")
    assert result.exit_code == 0, result.output
    assert "Glyph" not in result.output


def test_maps_need_not_be_drawn(place):
    assert run("p.fasta", "-o", "m.npz", "--no-png").exit_code == 0
    assert sorted(os.listdir(place)) == ["m.npz", "p.fasta", "w.safetensors"]


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (("-o", "m.csv"), "m.csv must be a folder, or a file that ends in .npz"),
        (("-o", "no/m.npz"), "there is no folder no"),
        (("-o", "p.fasta/x"), "p.fasta/x cannot be written"),
        (("-o", "m.npz", "none.fasta"), "none.fasta does not exist"),
        (("-o", "m.npz", "long.fasta"), "('titin') has 39 residues; the position table"),
        (("-o", "m.npz", "empty.fasta"), "empty.fasta is empty"),
    ],
)
def test_what_cannot_be_has_one_sentence_and_no_output(place, arguments, sentence):
    (place / "long.fasta").write_text(f">titin\n{'M' * 39}\n")
    (place / "empty.fasta").write_text("")
    result = run("p.fasta", *arguments)
    assert result.exit_code == 1
    assert sentence in " ".join(result.stderr.split())
    assert not [name for name in os.listdir(place) if name.startswith("m")]


def test_a_model_without_a_regression_has_one_sentence(place):
    save_weights("w.safetensors", esm1b(contact_head=False))
    result = run("p.fasta", "-o", "m.npz")
    assert result.exit_code == 1
    assert "no contact regression" in result.stderr
    assert "ESM-1v has none" in result.stderr


def test_trouble_on_the_way_leaves_no_half_file(place, monkeypatch):
    def broken(*arguments, **named):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(zipfile.ZipFile, "open", broken)
    result = run("p.fasta", "-o", "m.npz")
    assert result.exit_code == 1
    assert "m.npz cannot be written: No space left on device" in result.stderr
    assert sorted(os.listdir(place)) == ["p.fasta", "w.safetensors"]
