"""`fit` and `predict` as a person types them."""

import csv
import gzip
import json

import numpy as np
import pytest
from click.testing import CliRunner
from random_models import esm1b

from mlx_esm_kernels import save_weights
from mlx_esm_kernels.commands import cli

RNG = np.random.default_rng(0)
SEQUENCES = ["".join(RNG.choice(list("ACDEFGHIKLMNPQRSTVWY"), 12)) for _ in range(40)]


def write(path, header, *columns, delimiter=","):
    with open(path, "w", newline="") as file:
        writer = csv.writer(file, delimiter=delimiter)
        writer.writerow(header)
        writer.writerows(zip(*columns, strict=True))


def read(path):
    with open(path, newline="") as file:
        return list(csv.DictReader(file))


@pytest.fixture
def place(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    save_weights("w.safetensors", esm1b())
    names = [f"p{number}" for number in range(40)]
    kinds = ["in" if text.count("A") else "out" for text in SEQUENCES]
    numbers = [f"{text.count('K') + number / 100:.2f}" for number, text in enumerate(SEQUENCES)]
    labels = ["".join("HC"[letter in "GPNDS"] for letter in text) for text in SEQUENCES]
    header = ["id", "sequence", "kind", "y", "ss"]
    write("t.csv", header, names, SEQUENCES, kinds, numbers, labels)
    return tmp_path


def run(*arguments):
    return CliRunner().invoke(cli.main, [*map(str, arguments)], catch_exceptions=False)


def fit(target, task, *more, output="head", data="t.csv"):
    return run(
        *("fit", "--weights-file", "w.safetensors", "--data", data, "--target-col", target),
        *("--task", task, "--max-epochs", 3, "-o", output, *more),
    )


def said(result):
    return " ".join(result.output.split())


def test_numbers_are_fitted_reported_and_predicted_again(place):
    result = fit("y", "regression")
    assert result.exit_code == 0, result.output
    assert "40 proteins (" in result.output
    assert "look like variants" not in result.output
    assert "ridge regression on one-hot residues" in result.output
    assert {path.name for path in (place / "head").iterdir()} == {
        *("head.safetensors", "head.json", "metrics.json", "report.txt"),
        *("predictions.csv", "predictions.png"),
    }
    rows = read("head/predictions.csv")
    assert [row["id"] for row in rows] == [f"p{number}" for number in range(40)]
    assert {row["split"] for row in rows} == {"train", "valid", "test"}
    found = json.loads((place / "head/metrics.json").read_text())
    test = [(float(row["prediction"]), float(row["y"])) for row in rows if row["split"] == "test"]
    error = np.sqrt(np.mean([(a - b) ** 2 for a, b in test]))
    measures = found["parts"]["test"]["measures"]
    assert measures["this head"]["RMSE"] == pytest.approx(error, rel=1e-5)
    assert found["parts"]["test"]["proteins"] == len(test)
    assert measures["mean"]["Spearman"] is None
    assert run("predict", "head", "t.csv", "-o", "p.csv").exit_code == 0
    for again, row in zip(read("p.csv"), rows, strict=True):
        assert float(again["prediction"]) == pytest.approx(float(row["prediction"]), rel=1e-4)
        assert again["y"] == row["y"]


def test_the_same_command_gives_the_same_files(place):
    fit("y", "regression", "--hidden", 3, output="a")
    fit("y", "regression", "--hidden", 3, output="b")
    for name in ("head.safetensors", "predictions.csv", "metrics.json"):
        assert (place / "a" / name).read_bytes() == (place / "b" / name).read_bytes()


def test_classes_come_with_probabilities_and_a_confusion_matrix(place):
    result = fit("kind", "classification")
    assert result.exit_code == 0, result.output
    assert "2 classes: in, out" in result.output
    assert "rows are what is, columns what this head says" in result.output
    for row in read("head/predictions.csv"):
        both = {kind: float(row[f"probability_{kind}"]) for kind in ("in", "out")}
        assert sum(both.values()) == pytest.approx(1, abs=1e-3)
        assert row["prediction"] == max(both, key=both.get)
    (place / "p.fasta").write_text(f">first one\n{SEQUENCES[0]}\n>b\n{SEQUENCES[1]}\n")
    with gzip.open("p.fasta.gz", "wt") as file:
        file.write((place / "p.fasta").read_text())
    for name in ("p.fasta", "p.fasta.gz"):
        assert run("predict", "head", name, "-o", "p.csv").exit_code == 0
        assert [row["name"] for row in read("p.csv")] == ["first one", "b"]


@pytest.mark.parametrize("task", ["classification", "regression"])
def test_residues_have_a_prediction_each(place, task):
    target = "ss"
    if task == "regression":
        numbers = [" ".join(str(i % 5) for i in range(12))] * 40
        write("t.csv", ["sequence", "n"], SEQUENCES, numbers)
        target = "n"
    result = fit(target, task, "--level", "residue")
    assert result.exit_code == 0, result.output
    assert run("predict", "head", "t.csv", "-o", "p.csv", "--probabilities").exit_code == 0
    for row in (*read("head/predictions.csv"), *read("p.csv")):
        cell = row["prediction"]
        assert len(cell if task == "classification" else cell.split()) == 12
    if task == "classification":
        assert len(read("p.csv")[0]["probability_H"].split()) == 12
        assert "probability_H" not in read("head/predictions.csv")[0]


def test_a_table_may_name_the_parts(place):
    parts = ["train"] * 25 + ["val"] * 5 + ["test"] * 10
    write("t.csv", ["sequence", "y", "split"], SEQUENCES, range(40), parts)
    assert "has a column 'split' already" in said(fit("y", "regression"))
    assert fit("y", "regression", "--split-col", "split").exit_code == 0
    rows = read("head/predictions.csv")
    assert [row["split"] for row in rows] == [part.replace("val", "valid") for part in parts]
    assert list(rows[0]) == ["sequence", "y", "split", "prediction"]


def test_variants_are_told_apart_by_what_changed(place):
    wild = SEQUENCES[0]
    changed = [
        wild[:place] + letter + wild[place + 1 :]
        for place in range(12)
        for letter in "ACDE"
        if letter != wild[place]
    ]
    write("t.csv", ["sequence", "y"], changed, range(len(changed)))
    (place / "wild.fasta").write_text(f">wild\n{wild}\n")
    hint = "these look like variants of one protein"
    assert hint in fit("y", "regression", output="mean").output
    result = fit("y", "regression", "--wild-type", "wild.fasta")
    assert (result.exit_code, hint in result.output) == (0, False)
    result = run("predict", "head", "t.csv", "-o", "p.csv")
    assert (result.exit_code, "a guess" in result.output) == (0, False)
    rows = zip(read("p.csv"), read("head/predictions.csv"), strict=True)
    assert all(float(a["prediction"]) == pytest.approx(float(b["prediction"])) for a, b in rows)
    result = run("predict", "head", "wild.fasta", "-o", "p.csv")
    assert "1 of 1 variants, such as protein 1 ('wild'), differ from the wild type" in said(result)
    assert "those that the head was fitted to (1): these predictions are a guess" in said(result)
    write("u.csv", ["sequence"], [wild[:-1]])
    result = run("predict", "head", "u.csv", "-o", "p.csv")
    assert "protein 1 ('row 1') has 11 residues and the wild type 12" in said(result)


def test_a_folder_with_something_in_it_is_never_written_to(place):
    (place / "head").mkdir()
    assert fit("y", "regression").exit_code == 0  # an empty one is no one's
    before = (place / "head/head.json").read_bytes()
    result = fit("kind", "classification")
    assert result.exit_code == 1
    assert "head has something in it already; give a new folder." in said(result)
    assert (place / "head/head.json").read_bytes() == before


def test_nothing_is_left_of_a_fit_that_failed(place, monkeypatch):
    def full(*arguments, **named):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("mlx_esm_kernels.fitting.results.draw_scatter", full)
    result = fit("y", "regression")
    assert result.exit_code == 1
    assert "head cannot be written: No space left on device" in said(result)
    assert sorted(path.name for path in place.iterdir()) == ["t.csv", "w.safetensors"]


def test_windows_serve_proteins_that_are_longer_than_the_model(place):
    write("t.csv", ["sequence", "y"], [text * 4 for text in SEQUENCES], range(40))
    assert "40 proteins are too long" in said(fit("y", "regression"))
    assert fit("y", "regression", "--long", "window").exit_code == 0
    assert run("predict", "head", "t.csv", "-o", "p.csv").exit_code == 0


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["t.csv", "--sequence-col", "s"], "no column 's'; name that of the sequences with"),
        (["head/predictions.csv"], "has a column 'prediction' already; rename it"),
        (["nowhere.csv"], "nowhere.csv does not exist"),
        (["empty.csv"], "column 'sequence' is empty"),
        (["t.csv", "--weights-file", "other.safetensors"], "is not what this head was fitted to"),
    ],
)
def test_what_cannot_be_predicted_is_one_sentence(place, arguments, sentence):
    save_weights("other.safetensors", esm1b(seed=1))
    write("empty.csv", ["sequence", "y"], [""], ["1"])
    fit("y", "regression")
    result = run("predict", "head", *arguments, "-o", "p.csv")
    assert result.exit_code == 1
    assert sentence in said(result)
    assert not (place / "p.csv").exists()


def test_rows_without_a_sequence_stay_without_a_prediction(place):
    fit("y", "regression")
    write("u.csv", ["sequence", "y"], ["", SEQUENCES[0]], ["1", "2"])
    result = run("predict", "head", "u.csv", "-o", "p.csv")
    assert "is empty in 1 of 2 rows, which get no prediction" in said(result)
    assert [bool(row["prediction"]) for row in read("p.csv")] == [False, True]


def test_the_input_is_never_written_to(place):
    fit("y", "regression")
    result = run("predict", "head", "t.csv", "-o", "t.csv")
    assert "t.csv is the input too" in said(result)
    assert "must end in .csv" in said(run("predict", "head", "t.csv", "-o", "p.txt"))


@pytest.mark.parametrize("flag", ["--valid-fraction", "--test-fraction", "--learning-rate"])
def test_numbers_that_are_none_are_refused(place, flag):
    assert f"Invalid value for '{flag}'" in said(fit("y", "regression", flag, "nan"))
