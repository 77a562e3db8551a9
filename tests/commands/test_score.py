"""The score command: fair-esm's table and a column more, or a sentence."""

import csv
import gzip
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner
from PIL import Image
from random_models import esm1, esm1b

from mlx_esm_kernels import load_model, save_weights, score_variants
from mlx_esm_kernels.commands import score
from mlx_esm_kernels.data.alphabet import STANDARD_RESIDUES

SEQUENCE = "HPETLVKVKD"
SCAN = (
    "\ufeff,mutant,2500,note\n"
    '0,H24C,-0.418259925,"a, b"\n1,H24E,-0.27,\n2,P25W:E26A,,x\n3,D33K,0.5,y\n4,K32R,0.5,y\n'
)


@pytest.fixture
def place(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    save_weights("a.safetensors", esm1b())
    save_weights("b.safetensors", esm1(seed=1))
    (tmp_path / "in.csv").write_text(SCAN, encoding="utf-8")
    return tmp_path


def run(*arguments):
    return CliRunner().invoke(score.command, [str(argument) for argument in arguments])


def done(*arguments):
    result = run(*arguments)
    assert result.exit_code == 0, result.output
    return result.stdout


def failed(*arguments):
    result = run(*arguments)
    assert result.exit_code in (1, 2), result.output
    assert isinstance(result.exception, SystemExit), result.exception
    return " ".join(result.stderr.split())


FLAGS = ("--sequence", SEQUENCE, "--dms-input", "in.csv", "--dms-output", "out.csv")
FLAGS += ("--offset-idx", 24)


def rows_of(path):
    content = (gzip.decompress if path.endswith(".gz") else bytes)(Path(path).read_bytes())
    return list(csv.reader(content.decode().splitlines()))


@pytest.mark.parametrize("strategy", ["wt-marginals", "masked-marginals", "pseudo-perplexity"])
def test_a_column_per_model_is_added_and_all_else_is_kept(place, strategy):
    done("--weights-file", "a.safetensors", "b.safetensors", *FLAGS, "--scoring-strategy", strategy)
    header, *rows = rows_of("out.csv")
    assert header == ["", "mutant", "2500", "note", "a.safetensors", "b.safetensors"]
    assert [row[:4] for row in rows] == list(csv.reader(SCAN[1:].splitlines()))[1:]
    mutants = [row[1] for row in rows]
    for column, weights in ((4, "a.safetensors"), (5, "b.safetensors")):
        expected = score_variants(
            load_model(weights), SEQUENCE, mutants, strategy=strategy, offset=24
        )
        assert [float(row[column]) for row in rows] == pytest.approx(expected, rel=1e-6)


def test_the_words_of_fair_esm_are_understood(place):
    done("--model-location", "a.safetensors", *FLAGS, "--scoring-strategy", "pseudo-ppl")
    theirs = rows_of("out.csv")
    done("--weights-file", "a.safetensors", *FLAGS, "--scoring-strategy", "pseudo-perplexity")
    assert rows_of("out.csv") == theirs


def test_gzip_goes_in_and_comes_out(place):
    (place / "in.csv").write_bytes(gzip.compress(SCAN.encode()))
    flags = [str(flag).replace("out.csv", "out.csv.gz") for flag in FLAGS]
    done("--weights-file", "a.safetensors", *flags)
    compressed = rows_of("out.csv.gz")
    (place / "in.csv").write_text(SCAN, encoding="utf-8")
    done("--weights-file", "a.safetensors", *FLAGS)
    assert rows_of("out.csv") == compressed


def test_spearman_is_over_the_rows_that_have_a_score(place):
    out = done("--weights-file", "a.safetensors", "b.safetensors", *FLAGS, "--score-col", "2500")
    header, *rows = rows_of("out.csv")
    known = [row for row in rows if row[2]]
    measured = [float(row[2]) for row in known]
    for column in (4, 5):
        rho = score.spearman([float(row[column]) for row in known], measured)
        assert f"Spearman with '2500' over 4 variants: {rho:.3f} ({header[column]})" in out
    both = np.mean([[float(row[column]) for row in known] for column in (4, 5)], axis=0)
    assert f"{score.spearman(both, measured):.3f} (their mean)" in out
    assert "Spearman" not in done("--weights-file", "a.safetensors", *FLAGS)


def test_proteingym_needs_no_flags_but_the_sequence(place):
    (place / "in.csv").write_text(
        "mutant,mutated_sequence,DMS_score,DMS_score_bin\n"
        "H1A:D10W,APETLVKVKW,1.5,1\nP2C,HCETLVKVKD,-1,0\nE3D,HPDTLVKVKD,0,0\n"
    )
    (place / "wt.fasta").write_text(f">wt\n{SEQUENCE}\n")
    flags = ("--fasta", "wt.fasta", "--dms-input", "in.csv", "--dms-output", "out.csv")
    out = done("--weights-file", "a.safetensors", *flags)
    assert "Spearman with 'DMS_score' over 3 variants" in out
    (place / "in.csv").write_text("mutant,mutated_sequence\nH1A,AAETLVKVKD\n")
    message = failed("--weights-file", "a.safetensors", *flags)
    assert "in.csv, row 1, 'H1A': mutated_sequence is not the wild type with this mutant" in message


def test_every_substitution_is_a_table_and_a_heat_map(place):
    flags = ("--sequence", SEQUENCE, "--all-single", "--dms-output", "all.csv", "--offset-idx", 24)
    out = done("--weights-file", "a.safetensors", *flags)
    header, *rows = rows_of("all.csv")
    assert header == ["mutant", "a.safetensors"]
    assert len(rows) == 190
    assert (rows[0][0], rows[-1][0]) == ("H24A", "D33Y")
    assert "heat map saved to all.png" in out
    with Image.open("all.png") as picture:
        assert picture.format == "PNG"
        assert len(picture.convert("RGB").getcolors(1 << 24)) > 50


def test_the_grid_of_the_heat_map_has_each_score_in_its_place():
    sequence = "MKX"
    scores = np.arange(58.0)
    grid = score.substitution_grid(sequence, scores)
    for mutant, value in zip(score.every_substitution(sequence, 1), scores, strict=True):
        assert grid[STANDARD_RESIDUES.index(mutant[-1]), int(mutant[1:-1]) - 1] == value
    assert np.isnan(grid).sum() == 2


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        (b"", "in.csv is empty; expected csv"),
        (b"mutant,x\n", "in.csv has a line of names, but no rows"),
        (b"variant,x\nH24C,1\n", "in.csv has no column 'mutant'; it has 'variant', 'x'"),
        (
            b"mutant,x\nH24C,1\nH24E\n",
            "in.csv, row 2: expected 2 cells, as in the line of names; got 1",
        ),
        (
            b"mutant\nH24C\nH25C\n",
            "in.csv, row 2, 'H25C': expected H at position 25; the sequence has P",
        ),
        (
            b"mutant\nH24C\nHC\n",
            "in.csv, row 2, 'HC': 'HC' is no mutant; expected the residue, its",
        ),
        (b"mutant\nH99C\n", "in.csv, row 1, 'H99C': position 99 is out of range"),
        (b'mutant\n"H24C\n', "in.csv is no csv"),
        (b"\xff\xfe\x00", "in.csv is no csv"),
        (gzip.compress(b"mutant\nH24C\n")[:-6], "in.csv is cut short or damaged"),
        (b"mutant,a.safetensors\nH24C,1\n", "in.csv has a column 'a.safetensors' already"),
        (
            b"mutant,DMS_score\nH24C,high\n",
            "row 1: expected a number in column 'DMS_score'; got 'high'",
        ),
    ],
)
def test_a_table_that_cannot_be_scored_has_one_sentence_and_no_output(place, content, sentence):
    (place / "in.csv").write_bytes(content)
    assert sentence in failed("--weights-file", "a.safetensors", *FLAGS)
    assert not (place / "out.csv").exists()


@pytest.mark.parametrize(
    ("flags", "sentence"),
    [
        ((*FLAGS, "--score-col", "x"), "in.csv has no column 'x'"),
        ((*FLAGS, "--dms-output", "out.txt"), "out.txt must end in .csv or .csv.gz"),
        ((*FLAGS, "--dms-output", "in.csv"), "in.csv is the input too"),
        ((*FLAGS, "--dms-output", "no/out.csv"), "there is no folder no"),
        ((*FLAGS, "--dms-input", "none.csv"), "none.csv does not exist"),
        ((*FLAGS, "--weights-file", "a.safetensors"), "a.safetensors is given twice"),
        ((*FLAGS, "--all-single"), "Give either --dms-input or --all-single"),
        ((*FLAGS, "--fasta", "wt.fasta"), "either --sequence or --fasta"),
        ((*FLAGS, "--sequence", ""), "the sequence is empty"),
        ((*FLAGS, "--sequence", "HP*"), "the sequence has '*' at position 3"),
        (
            (*FLAGS, "--sequence", SEQUENCE * 4),
            "40 residues; the position table of this model ends at 38",
        ),
    ],
)
def test_flags_that_cannot_be_have_one_sentence(place, flags, sentence):
    assert sentence in failed("--weights-file", "a.safetensors", *flags)
    assert not (place / "out.csv").exists()
    assert (place / "in.csv").read_text(encoding="utf-8") == SCAN


def test_several_sequences_are_no_wild_type(place):
    (place / "wt.fasta").write_text(">a\nMK\n>b\nMK\n")
    flags = ("--fasta", "wt.fasta", "--all-single", "--dms-output", "out.csv")
    assert "has several sequences" in failed("--weights-file", "a.safetensors", *flags)


def test_damaged_weights_give_a_sentence_and_no_output(place):
    model = esm1b()
    model.layers[0].fc2.bias = model.layers[0].fc2.bias + float("nan")
    save_weights("a.safetensors", model)
    message = failed("--weights-file", "a.safetensors", *FLAGS)
    assert "a.safetensors" in message
    assert "NaN" in message
    assert not (place / "out.csv").exists()


def test_help_says_what_the_scores_are():
    text = " ".join(CliRunner().invoke(score.command, ["--help"]).output.split())
    assert "higher is fitter" in text
    assert "masked-marginals the same, with that residue masked" in text
