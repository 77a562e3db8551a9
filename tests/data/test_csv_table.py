"""Tables as spreadsheets and other programs write them."""

import contextlib
import gzip
import math
import warnings

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mlx_esm_kernels.data.csv_table import TableWarning, read_csv, write_csv
from mlx_esm_kernels.data.unpacking import zstd
from mlx_esm_kernels.system.errors import DataError

PLAIN = "mutant,score\nM1A,0.5\nK2R,1.25\n"


@pytest.mark.parametrize(
    "content",
    [
        PLAIN.encode(),
        b"\xef\xbb\xbf" + PLAIN.encode(),
        PLAIN.replace(",", "\t").encode("utf-16"),  # Excel's Unicode Text
        PLAIN.replace(",", "\t").encode("utf-16-le"),
        PLAIN.replace(",", ";").replace(".", ",").encode(),  # Excel of most of Europe
        PLAIN.replace(",", "\t").encode(),
        PLAIN.replace(",", "|").encode(),
        PLAIN.replace("\n", "\r\n").encode(),
        PLAIN.replace("\n", "\r").encode(),
        ("# of a web service\n# version 2\n" + PLAIN).encode(),
        gzip.compress(PLAIN.encode()),
        zstd.compress(PLAIN.encode()),
    ],
)
def test_a_table_is_read_however_it_is_written(write, content):
    table = read_csv(write(content, "in.csv"))
    assert table.column("mutant") == ["M1A", "K2R"]
    assert table.numbers("score").tolist() == [0.5, 1.25]


@pytest.mark.parametrize(
    ("content", "written"),
    [
        ("mutant;score\nM1A;0,5\n", "mutant;score;new\nM1A;0,5;-1,25\n"),
        ("mutant\tscore\nM1A\t0.5\n", "mutant\tscore\tnew\nM1A\t0.5\t-1.25\n"),
        ('#c\nmutant,a\n"M1A, x",0.50\n', '#c\nmutant,a,new\n"M1A, x",0.50,-1.25\n'),
    ],
)
def test_a_table_is_written_as_it_came_with_a_column_more(write, tmp_path, content, written):
    table = read_csv(write(content.encode(), "in.csv"))
    write_csv(tmp_path / "out.csv", table.with_columns({"new": np.array([-1.25])}))
    assert (tmp_path / "out.csv").read_text("utf-8") == written


@pytest.mark.parametrize(
    "missing", ["", "NA", "N/A", "#N/A", "nan", "NaN", "null", "None", "-", " "]
)
def test_a_missing_number_is_nan_and_an_empty_cell_again(write, tmp_path, missing):
    table = read_csv(write(f"mutant,score\nM1A,{missing}\nK2R,2\n".encode(), "in.csv"))
    numbers = table.numbers("score")
    assert math.isnan(numbers[0])
    assert numbers[1] == 2
    write_csv(tmp_path / "out.csv", table.with_columns({"new": numbers}))
    assert (tmp_path / "out.csv").read_text().splitlines()[1] == f"M1A,{missing},"


def test_texts_may_be_added_beside_numbers(write, tmp_path):
    table = read_csv(write(b"mutant;score\nM1A;0,5\n", "in.csv"))
    write_csv(tmp_path / "out.csv", table.with_columns({"kind": ["a;b"], "x": np.array([0.5])}))
    assert (tmp_path / "out.csv").read_text() == 'mutant;score;kind;x\nM1A;0,5;"a;b";0,5\n'


@pytest.mark.parametrize(
    ("cell", "number"), [("1.234,5", 1234.5), ("12,5", 12.5), ("12", 12.0), ("-1.234", -1234.0)]
)
def test_where_decimals_are_commas_a_full_stop_stands_between_thousands(write, cell, number):
    table = read_csv(write(f"mutant;score\nM1A;0,5\nK2R;{cell}\n".encode(), "in.csv"))
    assert table.numbers("score").tolist() == [0.5, number]


@pytest.mark.parametrize("cell", ["0.5", "12.5", "0.500", "1_000", "infinity", "1e999", "x"])
def test_what_is_no_number_or_may_be_two_is_refused(write, cell):
    table = read_csv(write(f"mutant;score\nM1A;0,5\nK2R;{cell}\n".encode(), "in.csv"))
    with pytest.raises(
        DataError, match=f"row 2: expected a number in column 'score'; got '{cell}'"
    ):
        table.numbers("score")


def test_text_of_windows_is_read_and_said(write):
    path = write("mutant,note\nM1A,\u00c5ngstr\u00f6m\n".encode("cp1252"), "in.csv")
    with pytest.warns(TableWarning, match="read as Windows-1252"):
        assert read_csv(path).column("note") == ["\u00c5ngstr\u00f6m"]


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        (b"PK\x03\x04" + bytes(30), "is not csv: it is a zip archive, cut short or damaged"),
        (b"\xd0\xcf\x11\xe0" + bytes(30), "is not csv: it is an old Office document"),
        (b"mutant,mutant\nM1A,K2R\n", "has more than one column 'mutant'"),
        (b"mutant\nM1\0A\n", "has zero bytes in it, so it is no text"),
    ],
)
def test_what_is_no_table_is_called_what_it_is(write, content, sentence):
    with pytest.raises(DataError, match=sentence):
        read_csv(write(content, "in.csv")).column("mutant")


@given(st.binary(max_size=200) | st.text(max_size=60).map(lambda t: ("mutant,x\n" + t).encode()))
def test_any_bytes_end_in_a_table_or_one_sentence(tmp_path_factory, content):
    path = tmp_path_factory.mktemp("any") / "x.csv"
    path.write_bytes(content)
    with warnings.catch_warnings(), contextlib.suppress(DataError):
        warnings.simplefilter("ignore")
        table = read_csv(path)
        assert all(len(row) == len(table.header) for row in table.rows)
