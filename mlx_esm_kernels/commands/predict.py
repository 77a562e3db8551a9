"""`python -m mlx_esm_kernels.predict`: what a head of `fit` says of other proteins."""

from __future__ import annotations

import warnings
from pathlib import Path

import click
import numpy as np

from ..data.alphabet import Alphabet
from ..data.csv_table import CsvTable, read_csv, require_csv_output, write_csv
from ..data.labelled import LabelWarning, read_sequences, row_names
from ..data.proteins import Proteins, load_proteins
from ..data.sources import open_source
from ..data.unpacking import unpacked
from ..fitting.head_folder import SavedHead, load_head
from ..fitting.predicting import predict, prediction_columns, prediction_names
from ..ops import keep_freed_memory
from ..system.console import progress, say
from ..system.errors import DataError
from ..system.whole_file import require_no_input, require_writable
from .errors import errors_as_sentences
from .flags import WEIGHTS_HELP, as_protein_flag, device_flag
from .grouped_command import GroupedCommand

NAME = "name"


@click.command("predict", cls=GroupedCommand, context_settings={"show_default": True})
@click.argument("head_dir", type=click.Path(path_type=Path))
@click.argument("data", type=click.Path(path_type=Path))
@click.option(
    "-o",
    "--output",
    required=True,
    type=click.Path(path_type=Path),
    help="csv to write (gzip where it ends in .gz): the table, or the names of the FASTA, and the "
    "column prediction, of classes probability_CLASS too.",
)
@click.option("--sequence-col", help="Column with the sequences of a table.  [default: as in fit]")
@click.option(
    "--probabilities",
    is_flag=True,
    help="Of residues too: as many numbers in a cell of probability_CLASS as there are residues.",
)
@click.option("--weights-file", help=f"{WEIGHTS_HELP}: those of fit, where they have moved.")
@as_protein_flag
@device_flag
@errors_as_sentences()
def command(
    *,
    head_dir: Path,
    data: Path,
    output: Path,
    sequence_col: str | None,
    probabilities: bool,
    weights_file: str | None,
    as_protein: bool,
) -> None:
    """Predict with a head that fit wrote to HEAD_DIR, for the proteins of DATA.

    DATA is a table as fit takes it, or FASTA; its content tells which.

    \b
    Examples:
      mlx-esm predict head proteins.fasta -o predictions.csv
      mlx-esm predict head new.csv --sequence-col protein -o predictions.csv
    """
    require_csv_output(output, data)
    require_no_input(output, head_dir, weights_file)
    require_writable(output)
    saved = load_head(head_dir)
    is_fasta = _is_fasta(data)
    table = None if is_fasta else read_csv(data)
    say("📥 loading weights and proteins")
    keep_freed_memory()
    model = saved.open_model(weights_file)
    if table is None:
        proteins = load_proteins(data, model.alphabet, as_protein=as_protein)
        table = CsvTable(str(data), [NAME], [[name] for name in proteins.names])
        rows = np.arange(len(proteins))
    else:
        column = sequence_col or saved.sequence_col
        rows, proteins = _proteins(table, column, model.alphabet, as_protein=as_protein)
    probabilities = probabilities or saved.spec.level == "protein"
    _require_new_columns(table, saved, probabilities=probabilities)
    total = int(proteins.lengths.sum())
    with progress(total=total, desc="🔮 predicting", unit="residue") as bar:
        found = predict(saved.head, saved.spec, model, proteins, bar.update)
        predictions = dict(zip(rows.tolist(), found, strict=True))
    columns = prediction_columns(table, saved.spec, predictions, probabilities=probabilities)
    write_csv(output, table.with_columns(columns))
    count = "1 protein" if len(proteins) == 1 else f"{len(proteins):,} proteins"
    say(f"💾 predictions of {count} saved to {output}")


def _is_fasta(data: Path) -> bool:
    with open_source(data) as file:
        start = unpacked(file, str(data)).peek(1 << 12)
    for encoding in ("utf-8-sig", "utf-16"):
        text = start.decode(encoding, errors="ignore").lstrip()
        if text.startswith((">", ";")):
            return True
    return False


def _proteins(
    table: CsvTable, column: str, alphabet: Alphabet, *, as_protein: bool
) -> tuple[np.ndarray, Proteins]:
    """The rows of a table with a sequence, from 0, and the proteins in them."""
    if column not in table.header:
        raise DataError(
            f"{table.name} has no column {column!r}; name that of the sequences with "
            f"--sequence-col. It has {', '.join(map(repr, table.header))}."
        )
    rows = np.array([row for row, text in enumerate(table.column(column)) if text.strip()], int)
    if not len(rows):
        raise DataError(f"{table.name}: column {column!r} is empty.")
    if missing := len(table.rows) - len(rows):
        warnings.warn(
            f"{table.name}: column {column!r} is empty in {missing:,} of {len(table.rows):,} rows, "
            f"which get no prediction.",
            LabelWarning,
            stacklevel=3,
        )
    sequences = read_sequences(table, column, rows, alphabet, as_protein=as_protein)
    return rows, Proteins.from_sequences(sequences, alphabet, row_names(rows))


def _require_new_columns(table: CsvTable, saved: SavedHead, *, probabilities: bool) -> None:
    for name in prediction_names(saved.spec.classes, probabilities=probabilities):
        if name in table.header:
            raise DataError(f"{table.name} has a column {name!r} already; rename it.")
