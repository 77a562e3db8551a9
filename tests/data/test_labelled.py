"""Proteins with targets, out of tables as people have them."""

import warnings

import numpy as np
import pytest

from mlx_esm_kernels.data.alphabet import ESM1B
from mlx_esm_kernels.data.csv_table import CsvTable
from mlx_esm_kernels.data.labelled import LabelWarning, read_labelled
from mlx_esm_kernels.system.errors import DataError

RNG = np.random.default_rng(0)
SEQUENCES = ["".join(RNG.choice(list("ACDEFGHIKLMNPQRSTVWY"), 30)) for _ in range(12)]
NUMBERS = [str(number) for number in range(12)]
NAMES = ["in", "out"] * 6
DNA = ["".join(RNG.choice(list("ACGT"), 30)) for _ in range(12)]


def read(sequences, targets, task="regression", level="protein", decimal=".", **more):
    rows = [list(pair) for pair in zip(sequences, targets, strict=True)]
    table = CsvTable("t.csv", ["sequence", "y"], rows, decimal=decimal)
    given = {"sequence_col": "sequence", "target_col": "y", "alphabet": ESM1B}
    return read_labelled(table, **{**given, "task": task, "level": level, **more})


def changed(values, **by_place):
    return [by_place.get(f"r{place}", value) for place, value in enumerate(values, start=1)]


def test_numbers_are_targets_of_proteins():
    found = read(SEQUENCES, NUMBERS)
    assert found.targets.tolist() == list(range(12))
    assert found.sequences == SEQUENCES
    assert found.offsets.tolist() == list(range(13))


def test_classes_have_names_in_order_and_na_is_one_of_them():
    found = read(SEQUENCES, ["NA", "HA"] * 6, "classification")
    assert found.classes == ("HA", "NA")  # hemagglutinin and neuraminidase, not a missing value
    assert found.targets.tolist() == [1, 0] * 6


def test_classes_that_are_numbers_are_in_their_order():
    assert read(SEQUENCES, ["10", "9", "2"] * 4, "classification").classes == ("2", "9", "10")


def test_a_character_a_residue_is_a_class_and_the_unknown_one_is_said():
    labels = ["HEC" * 9 + "--H"] * 12
    with pytest.warns(
        LabelWarning, match="24 of 360 residues have '-', which is taken for unknown"
    ):
        found = read(SEQUENCES, labels, "classification", "residue")
    assert found.classes == ("C", "E", "H")
    assert found.of_protein(3)[:4].tolist() == [2, 1, 0, 2]
    assert np.isnan(found.of_protein(3)[-3:]).tolist() == [True, True, False]


def test_the_unknown_character_may_be_a_class():
    labels = ["H-" * 15] * 12
    found = read(SEQUENCES, labels, "classification", "residue", unknown_label="")
    assert found.classes == ("-", "H")
    assert not np.isnan(found.targets).any()


@pytest.mark.parametrize(
    ("between", "decimal"), [(" ", "."), (";", "."), ("; ", "."), (", ", "."), (" ", ",")]
)
def test_a_number_a_residue_may_be_missing(between, decimal):
    numbers = [f"{number}.5".replace(".", decimal) for number in range(29)]
    cell = f"[{between.join([*numbers, 'nan'])}]"
    found = read(SEQUENCES, [cell] * 12, "regression", "residue", decimal)
    assert found.of_protein(11)[:2].tolist() == [0.5, 1.5]
    assert np.isnan(found.targets).sum() == 12


def test_rows_without_a_target_or_a_sequence_are_left_out_and_said():
    more = [text[::-1] for text in SEQUENCES[:3]]
    with pytest.warns(LabelWarning) as said:
        found = read(
            [*changed(SEQUENCES, r2=" "), *more], [*changed(NUMBERS, r5="", r7="NA"), "1", "2", "3"]
        )
    assert [str(one.message) for one in said] == [
        "t.csv: 1 row is left out, as column 'sequence' is empty there: row 2.",
        "t.csv: 2 rows are left out, as column 'y' is empty there, the first of them: row 5.",
    ]
    assert found.rows.tolist() == [0, 2, 3, 5, *range(7, 15)]


def test_sequences_are_read_as_people_write_them():
    written = [f" {text[:10].lower()} {text[10:]}* " for text in SEQUENCES]
    assert read(written, NUMBERS).sequences == SEQUENCES


@pytest.mark.parametrize(
    ("targets", "task"), [(NUMBERS, "regression"), (NAMES, "classification")], ids=["r", "c"]
)
def test_duplicates_that_contradict_each_other_are_said(targets, task):
    sequences = [*SEQUENCES, SEQUENCES[0]]
    with pytest.warns(LabelWarning, match="1 sequence has different targets .* rows 1 and 13"):
        read(sequences, [*targets, targets[1]], task)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        read(sequences, [*targets, targets[0]], task)


HHH = ["H" * 29 + "E"] * 12
ONES = [" ".join(["1"] * 29 + ["2"])] * 12


CLASSES = ("classification",)
RESIDUE_CLASSES, RESIDUE_NUMBERS = ("classification", "residue"), ("regression", "residue")


@pytest.mark.parametrize(
    ("sequences", "targets", "options", "sentence"),
    [
        (
            SEQUENCES,
            changed(NUMBERS, r3="high"),
            (),
            "row 3, column 'y': expected a number; got 'high'",
        ),
        (SEQUENCES, ["1.5"] * 12, (), "all targets of column 'y' are the same, 1.5"),
        (SEQUENCES, ["in"] * 12, CLASSES, "are the same, 'in'"),
        (SEQUENCES, changed(NAMES, r4="lost"), CLASSES, "row 4: class 'lost' .* has this one row"),
        (SEQUENCES, NUMBERS, CLASSES, "11 other classes.* Or are these numbers, of a regression"),
        (
            changed(SEQUENCES, r6="A24C"),
            NUMBERS,
            (),
            "row 6: expected a sequence.* got 'A24C', which has '2'",
        ),
        (changed(SEQUENCES, r6="*"), NUMBERS, (), "row 6: expected a sequence"),
        (changed(SEQUENCES, r6="MKJ"), NUMBERS, (), "which has 'J' in it"),
        (
            changed(SEQUENCES, r6="MK-A"),
            NUMBERS,
            (),
            "column 'sequence' of t.csv looks like an alignment",
        ),
        (DNA, NUMBERS, (), "looks like nucleotides, not proteins: 12 of 12 records .* 'row 1'"),
        (
            SEQUENCES[:9],
            NUMBERS[:9],
            (),
            "t.csv has 9 different proteins with a target; expected 10",
        ),
        (SEQUENCES[:6] * 2, NUMBERS, (), "t.csv has 6 different proteins"),
        (SEQUENCES, [""] * 12, (), "column 'y' is empty"),
        (
            SEQUENCES,
            changed(HHH, r2="HEC"),
            RESIDUE_CLASSES,
            "row 2, column 'y': expected 30 characters, one a residue; got 3",
        ),
        (
            SEQUENCES,
            changed(HHH, r2="HH H" + "E" * 26),
            RESIDUE_CLASSES,
            "row 2.*a label is a space",
        ),
        (
            SEQUENCES,
            changed(ONES, r2="1 2"),
            RESIDUE_NUMBERS,
            "expected 30 numbers, one a residue; got 2",
        ),
        (
            SEQUENCES,
            changed(ONES, r2=ONES[0].replace("2", "x")),
            RESIDUE_NUMBERS,
            "expected a number; got 'x'",
        ),
        (
            SEQUENCES,
            [" ".join(["nan"] * 30)] * 12,
            RESIDUE_NUMBERS,
            "not one target of column 'y' is known",
        ),
    ],
)
@pytest.mark.filterwarnings("ignore::mlx_esm_kernels.data.labelled.LabelWarning")
def test_what_nothing_can_be_learned_from_is_one_sentence(sequences, targets, options, sentence):
    with pytest.raises(DataError, match=sentence):
        read(sequences, targets, *options)


def test_nucleotides_may_be_insisted_on():
    with pytest.warns(UserWarning, match="read as proteins"):
        assert len(read(DNA, NUMBERS, as_protein=True)) == 12


def test_a_column_that_is_missing_is_named_with_those_that_there_are():
    with pytest.raises(DataError, match="no column 'kd'; it has 'sequence', 'y'"):
        read(SEQUENCES, NUMBERS, target_col="kd")
    with pytest.raises(DataError, match="cannot both be in 'y'"):
        read(SEQUENCES, NUMBERS, sequence_col="y")
