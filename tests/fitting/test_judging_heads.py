"""What a head is judged by: measures, baselines, and what the report says."""

import json
import math

import numpy as np
import pytest

from mlx_esm_kernels.data.alphabet import ESM1B
from mlx_esm_kernels.data.csv_table import CsvTable
from mlx_esm_kernels.data.labelled import read_labelled
from mlx_esm_kernels.fitting.baselines import baselines
from mlx_esm_kernels.fitting.metrics import classification_metrics, confusion, regression_metrics
from mlx_esm_kernels.fitting.report import HEAD, Report

RNG = np.random.default_rng(0)
LETTERS = list("ACDEFGHIKLMNPQRSTVWY")


def labelled(sequences, targets, task="regression", level="protein"):
    rows = [list(pair) for pair in zip(sequences, targets, strict=True)]
    return read_labelled(
        CsvTable("t.csv", ["s", "y"], rows),
        sequence_col="s", target_col="y", task=task, level=level, alphabet=ESM1B,
    )  # fmt: skip


def linear(given):
    count = len(given.targets)
    train, valid = np.arange(count // 2), np.arange(count // 2, count)
    constant, model = baselines(given, ESM1B, train, valid, seed=0)
    return constant, model, given.targets[valid], model.values[valid]


def test_residues_at_their_places_are_the_baseline_where_all_are_as_long():
    sequences = ["".join(RNG.choice(LETTERS, 9)) for _ in range(400)]
    given = labelled(sequences, [str(2.0 * (s[0] in "ACDEF") - (s[4] in "KR")) for s in sequences])
    constant, model, targets, values = linear(given)
    assert (constant.name, model.name) == ("mean", "ridge regression on one-hot residues")
    assert np.square(values - targets).mean() < 0.05 * targets.var()


def test_composition_is_the_baseline_of_proteins_of_several_lengths():
    sequences = ["".join(RNG.choice(LETTERS, RNG.integers(20, 40))) for _ in range(200)]
    names = ["a" if s.count("K") / len(s) > 0.05 else "b" for s in sequences]
    constant, model, targets, values = linear(labelled(sequences, names, "classification"))
    assert constant.name == "majority class"
    assert model.name == "logistic regression on amino-acid composition"
    assert (targets == values).mean() > 0.9


def test_neighbours_are_the_baseline_of_residues():
    sequences = ["".join(RNG.choice(LETTERS, 25)) for _ in range(60)]
    names = ["N" + "".join("NY"[s[i - 1] in "ACDEFGHIK"] for i in range(1, 25)) for s in sequences]
    _, model, targets, values = linear(labelled(sequences, names, "classification", "residue"))
    assert model.name == "logistic regression on one-hot residues, 5 on either side"
    assert (targets == values).mean() > 0.97


def test_a_class_that_only_others_have_is_no_trouble():
    sequences = ["".join(RNG.choice(LETTERS, 9)) for _ in range(20)]
    names = ["a", "b"] * 5 + ["a", "c"] * 5
    _, _, _, values = linear(labelled(sequences, names, "classification"))
    assert set(values.tolist()) <= {0.0, 1.0}


def test_measures_of_numbers():
    found = regression_metrics(np.array([1.0, 2, 3, 4]), np.array([1.0, 2, 4, 3]))
    assert found == pytest.approx({"Spearman": 0.8, "R2": 0.6, "RMSE": math.sqrt(0.5)})
    constant = regression_metrics(np.array([1.0, 3]), np.array([2.0, 2]))
    assert math.isnan(constant["Spearman"])
    assert (constant["R2"], constant["RMSE"]) == (0, 1)


def test_measures_of_classes_are_over_those_that_there_are():
    truth, said = np.array([0.0, 0, 0, 1]), np.array([0.0, 0, 2, 1])
    found = classification_metrics(truth, said)
    assert found["accuracy"] == 0.75
    assert found["balanced accuracy"] == pytest.approx((2 / 3 + 1) / 2)
    assert found["macro F1"] == pytest.approx((0.8 + 1) / 2)
    assert confusion(truth, said, 3).tolist() == [[2, 0, 1], [0, 1, 0], [0, 0, 0]]


def report(ours, theirs, part="test"):
    measures = {
        who: {"Spearman": value, "R2": 0.1, "RMSE": 2.0}
        for who, value in ((HEAD, ours), ("mean", math.nan), ("ridge", theirs))
    }
    sizes = {"train": (7, 7), "valid": (1, 1), "test": (2, 2)}
    return Report("regression", "protein", (), sizes, {part: measures}, part, None, 5, 3)


@pytest.mark.parametrize(
    ("ours", "theirs", "says"),
    [
        (0.5, 0.4, "this head is better than ridge: Spearman 0.500 and 0.400"),
        (0.3, 0.4, "this head is NOT better than ridge: Spearman 0.300 and 0.400"),
        (0.4, 0.4, "this head is NOT better than ridge: Spearman 0.400 and 0.400"),
        (math.nan, 0.4, "this head is NOT better than ridge: Spearman undefined and 0.400"),
    ],
)
def test_it_is_said_whether_a_head_is_better_than_what_needs_no_model(ours, theirs, says):
    assert report(ours, theirs).verdict() == says
    json.dumps(report(ours, theirs).to_dict(), allow_nan=False)


def test_what_was_chosen_by_the_same_proteins_is_said_to_be_too_good():
    assert "so that is too good; hold a test part out" in report(0.5, 0.4, "valid").verdict()
