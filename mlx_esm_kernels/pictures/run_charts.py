"""The record of a run as charts and as a table."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

from .line_chart import Chart, Level, Line
from .loss_curve import smooth
from .report_parts import folded, table

Rows = Sequence[Mapping[str, float]]

_MOST_ROWS = 60
_COLUMNS = (
    ("step", "step", ",.0f"),
    ("train_loss", "training loss", ".4f"),
    ("valid_perplexity", "held-out perplexity", ".3f"),
    ("learning_rate", "learning rate", ".3g"),
    ("residues_per_second", "residues/s", ",.0f"),
    ("waiting", "waiting", ".1%"),
)


def charts(rows: Rows, levels: Mapping[str, float]) -> list[str]:
    """What there are values of: loss, perplexity, learning rate, speed and waiting.

    Args:
        rows: of metrics.jsonl.
        levels: perplexities that no model is needed for, by name.
    """
    losses = _pairs(rows, "train_loss")
    smoothed = list(zip([x for x, _ in losses], smooth([y for _, y in losses]), strict=True))
    perplexities = _pairs(rows, "valid_perplexity")
    # Rows of an objective that masks other shares than validation does have a bound beside it.
    bounds = _pairs(rows, "valid_bound")
    training, held_out = "training", "held out"
    if bounds:
        training, held_out = "training, its own mask rates", "held out, 15 % masked"
    styles = ("level-a", "level-b", "level-c")
    known = [
        Level(name, style, value)
        for style, (name, value) in zip(styles, levels.items(), strict=False)
        if math.isfinite(value)
    ]
    speeds, waiting = _pairs(rows, "residues_per_second"), _pairs(rows, "waiting")
    waiting = [(step, 100 * share) for step, share in waiting]
    made = (
        Chart(
            "Held-out perplexity",
            "all targets masked",
            [Line("this model", "main", perplexities, True)],
            known,
        ),
        Chart(
            "Loss on masked residues",
            "nats",
            [
                Line(f"{training}, as it was", "thin", losses),
                Line(f"{training}, smoothed", "main", smoothed),
                Line(held_out, "second", _pairs(rows, "valid_loss"), True),
                Line("held out, bound over all mask rates", "third", bounds, True),
            ],
        ),
        Chart(
            "Learning rate",
            "",
            [Line("learning rate", "main", _pairs(rows, "learning_rate"), True)],
            spec=".3g",
            from_zero=True,
        ),
        Chart("Speed", "residues/s", [Line("residues/s", "main", speeds, True)], (), ",.0f", True),
        Chart(
            "Time spent waiting for data",
            "% of the steps' time",
            [Line("waiting", "main", waiting, True)],
            (),
            ".2g",
            True,
        ),
    )
    return [chart.html() for chart in made if any(line.pairs for line in chart.lines)]


def rows_table(rows: Rows) -> str:
    """The values behind the charts, folded; of a long run some rows, evenly, and both ends."""
    columns = [one for one in _COLUMNS if any(one[0] in row for row in rows)]
    if not rows or not columns:
        return ""
    last = len(rows) - 1
    count = min(last, _MOST_ROWS - 1)
    places = sorted({round(last * number / count) for number in range(count + 1)} if count else {0})
    # Those with a held-out perplexity first, as far as there is room.
    valid = [place for place, row in enumerate(rows) if "valid_perplexity" in row]
    if len(valid) <= _MOST_ROWS:
        places = sorted({*places, *valid})
    cells = [
        tuple(
            f"{rows[place][key]:{spec}}" if key in rows[place] else "–" for key, _, spec in columns
        )
        for place in places
    ]
    shown = "all" if len(places) == len(rows) else f"{len(places)} of {len(rows):,} rows"
    head = [name for _, name, _ in columns]
    return folded(f"Values of the charts ({shown})", table("Values of the charts", head, cells))


def _pairs(rows: Rows, key: str) -> list[tuple[float, float]]:
    return [
        (float(row["step"]), float(row[key]))
        for row in rows
        if key in row and math.isfinite(row[key])
    ]
