"""What `fit` leaves in HEAD_DIR: the head, how good it is, and every prediction."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

from ..data.csv_table import CsvTable, write_csv
from ..data.labelled import Labelled
from ..data.splitting import PARTS, Parts
from ..models.esm1 import ESM1
from ..models.low_rank import LowRank
from ..pictures.predictions import draw_confusion, draw_scatter
from ..system.errors import DataError
from ..system.whole_file import whole_folder
from .fitting import Fitted, known_targets
from .head_folder import SavedHead, save_head
from .predicting import prediction_columns, prediction_names
from .report import Report

METRICS, REPORT = "metrics.json", "report.txt"
PREDICTIONS, PICTURE = "predictions.csv", "predictions.png"
SPLIT = "split"


@dataclass(frozen=True)
class FitResult:
    """What there is to write.

    Attributes:
        table: where the proteins come from. labelled, parts: what of it was used, and how.
        fitted, report: what came of it. saved: the head with the model beneath.
        split_col: the column of the table that named the parts, if one did.
        adapted: see `save_head`.
    """

    table: CsvTable
    labelled: Labelled
    parts: Parts
    fitted: Fitted
    report: Report
    saved: SavedHead
    split_col: str | None = None
    adapted: tuple[ESM1, LowRank] | None = None


def require_new_columns(table: CsvTable, labelled: Labelled, split_col: str | None) -> None:
    """Refuse a table that has what predictions.csv adds to it.

    Raises:
        DataError: names the column.
    """
    names = prediction_names(labelled.classes, probabilities=labelled.level == "protein")
    for name in [*names, *([SPLIT] if split_col != SPLIT else [])]:
        if name in table.header:
            hint = f", or part by it with --split-col {SPLIT}" if name == SPLIT else ""
            raise DataError(
                f"{table.name} has a column {name!r} already, which {PREDICTIONS} adds; rename "
                f"it{hint}."
            )


def write_result(output: Path, result: FitResult) -> None:
    """Make the folder `output`, whole or not at all.

    Raises:
        OutputError: it cannot be written, or has something in it.
    """
    labelled, fitted, report = result.labelled, result.fitted, result.report
    with whole_folder(output) as folder:
        save_head(folder, result.saved, result.adapted)
        (folder / REPORT).write_text("\n".join(report.lines()) + "\n", encoding="utf-8")
        text = json.dumps(report.to_dict(), indent=2, ensure_ascii=False, allow_nan=False)
        (folder / METRICS).write_text(text + "\n", encoding="utf-8")
        write_csv(folder / PREDICTIONS, _predictions(result))
        title = report.caption()
        if report.confusion is not None:
            draw_confusion(folder / PICTURE, report.confusion, labelled.classes, title=title)
        else:
            rows = known_targets(labelled, result.parts)[report.part]
            targets, values = labelled.targets[rows], fitted.prediction.values[rows]
            draw_scatter(folder / PICTURE, targets, values, title=title)


def _predictions(result: FitResult) -> CsvTable:
    """The table with the part and the prediction of every protein."""
    table, labelled = result.table, result.labelled
    splits = [""] * len(table.rows)
    predictions = {}
    for place, row in enumerate(labelled.rows.tolist()):
        splits[row] = PARTS[int(result.parts[place])]
        of_protein = slice(*labelled.offsets[place : place + 2])
        predictions[row] = result.fitted.prediction[of_protein]
    is_protein = labelled.level == "protein"
    columns = prediction_columns(table, result.fitted.spec, predictions, probabilities=is_protein)
    if result.split_col == SPLIT:
        table = table.without_column(SPLIT)
    return table.with_columns({SPLIT: splits, **columns})
