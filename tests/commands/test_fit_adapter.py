"""`fit --lora-rank` and `predict`: an adapter that was trained with a head is used with it."""

import csv
import json
import shutil

import numpy as np
import pytest
from click.testing import CliRunner
from random_models import esm1b

from mlx_esm_kernels import save_weights
from mlx_esm_kernels.commands import cli
from mlx_esm_kernels.fitting.report import FROZEN, HEAD

RNG = np.random.default_rng(0)
LETTERS = "ACDEFGHIKLMNPQRSTVWY"
SEQUENCES = ["".join(RNG.choice(list(LETTERS), 12)) for _ in range(150)]
WILD = SEQUENCES[0]
VARIANTS = [WILD[:i] + x + WILD[i + 1 :] for i in range(12) for x in "ACDEKR" if x != WILD[i]]
LORA = ("--lora-rank", 4, "--lora-epochs", 10, "--lora-patience", 10)


@pytest.fixture(autouse=True)
def place(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    save_weights("w.safetensors", esm1b())
    shares = [f"{sum(letter in 'AILMFVWY' for letter in text)}" for text in SEQUENCES]
    labels = ["".join("HC"[letter in "GPNDSAKR"] for letter in text) for text in SEQUENCES]
    write("t.csv", ["sequence", "y", "ss"], SEQUENCES, shares, labels)
    write("v.csv", ["sequence", "y"], VARIANTS, [LETTERS.index(text[3]) for text in VARIANTS])
    (tmp_path / "wild.fasta").write_text(f">wild\n{WILD}\n")
    return tmp_path


def write(path, header, *columns):
    with open(path, "w", newline="") as file:
        csv.writer(file).writerows([header, *zip(*columns, strict=True)])


def run(*arguments):
    return CliRunner().invoke(cli.main, [*map(str, arguments)], catch_exceptions=False)


def fit(*more, target="y", task="regression", output="head", data="t.csv", lora=LORA):
    return run(
        *("fit", "--weights-file", "w.safetensors", "--data", data, "--target-col", target),
        *("--task", task, "--max-epochs", 30, "--learning-rate", 0.02, "-o", output),
        *("--valid-fraction", 0.3, *lora, *more),
    )


def said(result):
    return " ".join(result.output.split())


def predictions(path):
    with open(path, newline="") as file:
        return [row["prediction"] for row in csv.DictReader(file)]


def found(folder="head"):
    with open(f"{folder}/metrics.json") as file:
        return json.load(file)


def test_an_adapter_is_better_on_the_proteins_that_choose_and_the_base_is_never_touched(place):
    before = (place / "w.safetensors").read_bytes()
    result = fit()
    assert result.exit_code == 0, result.output
    assert (place / "w.safetensors").read_bytes() == before
    told = found()["adapter"]
    assert told["valid_loss"] < 0.85 * told["valid_loss_of_frozen"]
    # Two layers: four matrices (16, 16), and two between 16 and 32.
    assert (told["rank"], told["parameters"], told["kept"]) == (4, 4 * 2 * (4 * 32 + 2 * 48), True)
    measures = found()["parts"]["valid"]["measures"]
    assert measures[HEAD]["RMSE"] < measures[FROZEN]["RMSE"]
    assert "adapter of rank 4, 1,792 parameters: epoch" in said(result)
    assert "adapter of rank 4" in (place / "head/report.txt").read_text()
    names = {path.name for path in (place / "head/adapters").iterdir()}
    assert names == {"adapters.safetensors", "adapter_config.json"}


@pytest.mark.parametrize(
    "kind",
    [
        {},
        {"target": "ss", "task": "classification", "more": ("--level", "residue")},
        {"data": "v.csv", "more": ("--wild-type", "wild.fasta")},
    ],
    ids=["proteins", "residues", "variants"],
)
def test_predict_says_what_fit_said_with_the_adapter(kind, place):
    options = {name: value for name, value in kind.items() if name != "more"}
    assert fit(*kind.get("more", ()), **options).exit_code == 0
    assert found()["adapter"]["kept"]
    result = run("predict", "head", kind.get("data", "t.csv"), "-o", "p.csv")
    assert result.exit_code == 0, result.output
    again, wanted = predictions("p.csv"), predictions("head/predictions.csv")
    if "task" in kind:
        assert again == wanted
    else:
        assert [*map(float, again)] == pytest.approx([*map(float, wanted)], rel=1e-3, abs=1e-3)
        fit(*kind.get("more", ()), **options, output="frozen", lora=())
        frozen = [*map(float, predictions("frozen/predictions.csv"))]
        assert frozen != pytest.approx([*map(float, wanted)], rel=1e-2, abs=1e-2)


def test_the_same_command_gives_the_same_adapter(place):
    for output in "ab":
        fit(output=output)
    for name in ("adapters/adapters.safetensors", "head.safetensors", "predictions.csv"):
        assert (place / "a" / name).read_bytes() == (place / "b" / name).read_bytes()


def test_an_adapter_that_is_no_better_is_left_out(place):
    result = fit("--lora-learning-rate", 1, "--lora-patience", 1)
    assert result.exit_code == 0, result.output
    assert "is better on valid than frozen features, so it is left out" in said(result)
    assert not (place / "head/adapters").exists()
    assert not found()["adapter"]["kept"]
    fit(output="frozen", lora=())
    assert predictions("head/predictions.csv") == predictions("frozen/predictions.csv")
    assert run("predict", "head", "t.csv", "-o", "p.csv").exit_code == 0


def another_base(place):
    save_weights("w.safetensors", esm1b(seed=1))


def without_adapter(place):
    shutil.rmtree(place / "head/adapters")


def without_arrays(place):
    (place / "head/adapters/adapters.safetensors").unlink()


def another_adapter(place):
    fit("--seed", 1, output="other")
    shutil.rmtree(place / "head/adapters")
    shutil.copytree(place / "other/adapters", place / "head/adapters")


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        (another_base, "is not what this head was fitted to"),
        (without_adapter, "the folder adapters, is not there. Put it back"),
        (without_arrays, "adapters.safetensors"),
        (another_adapter, "is another adapter than the one that this head was trained with"),
    ],
)
def test_a_head_without_what_it_was_trained_with_is_refused_in_a_sentence(place, change, sentence):
    fit()
    change(place)
    result = run("predict", "head", "t.csv", "-o", "p.csv")
    assert result.exit_code == 1
    assert sentence in said(result)
    assert not (place / "p.csv").exists()


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (("--lora-scale", 2), "--lora-scale is of --lora-rank: give both or neither"),
        (("--lora-epochs", 2), "--lora-epochs is of --lora-rank: give both or neither"),
        (("--lora-rank", 2, "--lora-layers", 3), "has 2 layers, too few for an adapter of 3"),
        (("--lora-rank", 2, "--lora-keys", "lm_head.dense"), "Invalid value for '--lora-keys'"),
    ],
)
def test_options_that_cannot_be_are_refused_before_any_work(place, arguments, sentence):
    result = fit(lora=arguments)
    assert result.exit_code != 0
    assert sentence in said(result)
    assert not (place / "head").exists()
