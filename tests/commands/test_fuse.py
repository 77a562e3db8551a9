"""--adapter from the outside: each command uses it, fuse adds it, and nonsense is a sentence."""

import csv
import json
import re

import mlx.core as mx
import numpy as np
import pytest
from adapters import adapted
from click.testing import CliRunner
from pdb_files import protein
from random_models import esm1b, same

from mlx_esm_kernels import load_model, save_weights
from mlx_esm_kernels.commands import cli
from mlx_esm_kernels.models.fingerprint import fingerprint_of_base
from mlx_esm_kernels.models.low_rank import LowRank
from mlx_esm_kernels.weights import load_fused
from mlx_esm_kernels.weights.adapter import BaseWeights, save_adapter

LOW_RANK = LowRank(4, 4.0)


@pytest.fixture
def place(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    model = esm1b()
    save_weights("w.safetensors", model)
    base = BaseWeights("w.safetensors", fingerprint_of_base(model))
    save_adapter(tmp_path / "a", adapted(model, LOW_RANK), LOW_RANK, base)
    (tmp_path / "p.pdb").write_text(protein("MKTAYIAKQRQI"))
    (tmp_path / "p.fasta").write_text(">a\nMKTAYIAKQRQI\n>b\nMKQRQI\n")
    return tmp_path


def run(name, *arguments, weights=("w.safetensors",), adapter="a"):
    given = [flag for file in weights for flag in ("--weights-file", file)]
    given += ["--adapter", adapter] if adapter else []
    return CliRunner().invoke(cli.main, [name, *given, *map(str, arguments)])


def works(*arguments, **named):
    result = run(*arguments, **named)
    assert result.exit_code == 0, result.output
    return result


def told(result, code):
    assert result.exit_code == code, result.output
    return " ".join(result.stderr.split())


def fused(place):
    works("fuse", "-o", "fused.safetensors")
    return {"weights": ("fused.safetensors",), "adapter": None}


@pytest.mark.parametrize(
    ("name", "arguments", "output"),
    [
        ("embed", ["p.fasta", "-o"], "out.npz"),
        ("contacts", ["p.fasta", "--no-png", "-o"], "out.npz"),
    ],
)
def test_arrays_of_an_adapter_are_those_of_the_fused_weights(place, name, arguments, output):
    file = "mean.2" if name == "embed" else "contacts_1"
    works(name, *arguments, output)
    ours = np.load(output)[file]
    works(name, *arguments, f"fused-{output}", **fused(place))
    np.testing.assert_allclose(ours, np.load(f"fused-{output}")[file], rtol=1e-3, atol=1e-4)
    works(name, *arguments, f"plain-{output}", adapter=None)
    assert np.abs(ours - np.load(f"plain-{output}")[file]).max() > 0.01


def test_an_embedding_says_with_which_adapter_and_that_its_weights_are_others(place):
    works("embed", "p.fasta", "-o", "out.npz")
    about = json.loads(str(np.load("out.npz")["about"]))
    assert about["model"] == f"w.safetensors with adapter {place.name}/a"
    works("embed", "p.fasta", "-o", "plain.npz", adapter=None)
    plain = json.loads(str(np.load("plain.npz")["about"]))
    assert {key for key in about if about[key] != plain[key]} == {"model", "weights"}


def test_scores_of_an_adapter_are_in_a_column_of_its_own(place):
    arguments = ["--sequence", "MKTAYI", "--all-single", "--dms-output"]
    works("score", *arguments, "out.csv")
    works("score", *arguments, "fused.csv", **fused(place))
    (header, *ours), (_, *theirs) = (
        list(csv.reader((place / name).open())) for name in ("out.csv", "fused.csv")
    )
    assert header == ["mutant", "w.safetensors with adapter a"]
    ours, theirs = (np.array([float(row[1]) for row in rows]) for rows in (ours, theirs))
    np.testing.assert_allclose(ours, theirs, rtol=1e-3, atol=1e-3)
    assert (place / "out.png").exists()


def test_evaluate_measures_the_adapted_model(place):
    figures = {}
    for name, given in {"ours": {}, "plain": {"adapter": None}, "fused": fused(place)}.items():
        works("evaluate", "p.fasta", "--json", f"{name}.json", **given)
        ((model, record),) = json.loads((place / f"{name}.json").read_text())["models"].items()
        figures[name] = record
        assert model == {"ours": "w.safetensors with adapter a", "plain": "w.safetensors"}.get(
            name, "fused.safetensors"
        )
    assert figures["ours"] != figures["plain"]


@pytest.mark.parametrize(
    ("name", "arguments"),
    [("generate", ["--length", 8]), ("unmask", ["--seq", "MK****"])],
)
def test_proteins_grown_with_an_adapter_are_those_of_the_fused_weights(place, name, arguments):
    def grown(**weights):
        fasta = works(name, *arguments, "--max-prob-only", **weights).stdout
        return re.sub(r" weights=\S+( adapter=\S+)?", "", fasta)  # which headers name

    assert grown() == grown(**fused(place))
    assert grown() != grown(adapter=None)


def test_view_takes_an_adapter_for_its_weights(place):
    works("view", "p.pdb", "-o", "ours.html")
    works("view", "p.pdb", "-o", "plain.html", adapter=None)
    assert (place / "ours.html").read_text() != (place / "plain.html").read_text()
    result = run("view", "p.pdb", "-o", "out.html", weights=())
    assert "--adapter needs --weights-file, its base." in told(result, 2)


@pytest.mark.parametrize("name", ["score", "evaluate"])
def test_an_adapter_is_of_one_model(place, name):
    arguments = {
        "score": ["--sequence", "MKT", "--all-single", "--dms-output", "out.csv"],
        "evaluate": ["p.fasta"],
    }[name]
    result = run(name, *arguments, weights=("w.safetensors", "v.safetensors"))
    assert "--adapter needs exactly one --weights-file, its base." in told(result, 2)


def test_the_adapter_of_other_weights_is_a_sentence(place):
    save_weights("v.safetensors", esm1b(seed=3))
    for name, arguments in {"embed": ["p.fasta"], "fuse": []}.items():
        result = run(name, *arguments, "-o", "out.safetensors", weights=("v.safetensors",))
        assert "a is an adapter of w.safetensors (fingerprint" in told(result, 1)
        assert not (place / "out.safetensors").exists()


@pytest.mark.parametrize("dtype", [None, "bfloat16"])
def test_fuse_writes_weights_like_any_other(place, dtype):
    result = works("fuse", "-o", "out.safetensors", *(("--dtype", dtype) if dtype else ()))
    assert "saved to out.safetensors" in result.output
    model = load_model("out.safetensors")
    assert same(model, load_fused("w.safetensors", "a", dtype))
    assert model.embed_tokens.weight.dtype == (mx.bfloat16 if dtype else mx.float32)


def test_fuse_writes_a_folder_for_transformers(place):
    works("fuse", "--to", "hugging-face", "-o", "out")
    assert same(load_model("out"), load_fused("w.safetensors", "a"))
    result = run("fuse", "--to", "hugging-face", "-o", "a")
    assert "a has something in it already; give a new folder." in told(result, 1)


@pytest.mark.parametrize(
    ("output", "sentence"),
    [
        ("w.safetensors", "w.safetensors is the input too; give the output another name."),
        ("link.safetensors", "link.safetensors is the input too"),
        ("a/adapters.safetensors", "a/adapters.safetensors is part of the input a"),
        ("out.pt", "out.pt must end in .safetensors."),
        ("nowhere/out.safetensors", "there is no folder nowhere"),
    ],
)
def test_fuse_writes_over_no_input_and_to_no_place_that_cannot_be(place, output, sentence):
    (place / "link.safetensors").symlink_to(place / "w.safetensors")
    before = {path: path.read_bytes() for path in place.rglob("*") if path.is_file()}
    assert sentence in told(run("fuse", "-o", output), 1)
    assert {path: path.read_bytes() for path in place.rglob("*") if path.is_file()} == before
