"""How good a head is beside what needs no model: as numbers, and as text."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from ..data.labelled import Labelled
from ..data.splitting import PARTS, Parts
from ..models.low_rank import LowRank
from .baselines import Baseline
from .fitting import Fitted, known_targets
from .metrics import MEASURES, confusion, metrics, without_nan

HEAD, FROZEN = "this head", "head on frozen features"
_MOST_SHOWN = 12  # classes of a confusion matrix that a terminal has the width for

Measures = Mapping[str, Mapping[str, float]]


@dataclass(frozen=True)
class AdapterReport:
    """What came of the low-rank products that were trained with a head.

    Attributes:
        low_rank: which they are. parameters: how many numbers they have.
        learning_rate: of them, and of the head beside them.
        epochs, best_epoch: of their training; best_epoch 0: none was better than the frozen
            model, and they are left out.
        valid_losses: of the part valid, on frozen features and in the best epoch.
    """

    low_rank: LowRank
    parameters: int
    learning_rate: float
    epochs: int
    best_epoch: int
    valid_losses: tuple[float, float]

    def to_dict(self) -> dict[str, object]:
        """Ready for json."""
        before, after = self.valid_losses
        return {
            **dataclasses.asdict(self.low_rank),
            "parameters": self.parameters,
            "learning_rate": self.learning_rate,
            "epochs": self.epochs,
            "best_epoch": self.best_epoch,
            "kept": self.best_epoch > 0,
            "valid_loss_of_frozen": before,
            "valid_loss": after,
        }

    def line(self) -> str:
        """The same for a person."""
        what = f"adapter of rank {self.low_rank.rank}, {self.parameters:,} parameters: "
        before, after = self.valid_losses
        if not self.best_epoch:
            return (
                f"{what}none of {self.epochs} epochs is better on valid than frozen features, so "
                f"it is left out"
            )
        return (
            f"{what}epoch {self.best_epoch} of {self.epochs} is the best, loss on valid "
            f"{after:.4f}; {before:.4f} on frozen features"
        )


@dataclass(frozen=True)
class Report:
    """What came of a fit.

    Attributes:
        task, level, classes: see `Labelled`.
        sizes: by part, its proteins and its known targets.
        measures: by part, by what predicts (HEAD first), the measures.
        part: the one that judges: test, or valid where there is no test.
        confusion: (K, K) of the head in that part; none of a regression.
        epochs, best_epoch: of the training; with an adapter, of that on frozen features.
        adapter: what was trained in the model with the head; None: nothing was.
    """

    task: str
    level: str
    classes: tuple[str, ...]
    sizes: Mapping[str, tuple[int, int]]
    measures: Mapping[str, Measures]
    part: str
    confusion: npt.NDArray[np.int64] | None
    epochs: int
    best_epoch: int
    adapter: AdapterReport | None = None

    def to_dict(self) -> dict[str, object]:
        """Ready for json; what is undefined is null."""
        return {
            "task": self.task,
            "level": self.level,
            "classes": list(self.classes),
            "epochs": self.epochs,
            "best_epoch": self.best_epoch,
            **({} if self.adapter is None else {"adapter": self.adapter.to_dict()}),
            "parts": {
                name: {
                    "proteins": self.sizes[name][0],
                    "targets": self.sizes[name][1],
                    "measures": {who: without_nan(found) for who, found in measures.items()},
                }
                for name, measures in self.measures.items()
            },
            "judged_on": self.part,
            "confusion": None if self.confusion is None else self.confusion.tolist(),
        }

    def lines(self) -> list[str]:
        """The same for a person."""
        names = MEASURES[self.task]
        width = max(len(who) for who in self.measures[self.part])
        columns = [max(len(name), 6) for name in names]
        head = "  ".join(name.rjust(size) for name, size in zip(names, columns, strict=True))
        lines = [f"{'':{width + 4}}{head}"]
        for part in reversed(list(self.measures)):
            proteins, targets = self.sizes[part]
            of = f", {targets:,} residues" if self.level == "residue" else ""
            lines.append(f"  {part}: {proteins:,} proteins{of}")
            for who, found in self.measures[part].items():
                cells = (
                    ("-" if math.isnan(found[name]) else f"{found[name]:.3f}").rjust(size)
                    for name, size in zip(names, columns, strict=True)
                )
                lines.append(f"    {who:{width}}{'  '.join(cells)}")
        adapter = [] if self.adapter is None else [self.adapter.line()]
        return [*lines, *self._confusion_lines(), *adapter, self.verdict()]

    def caption(self) -> str:
        """The measures of the head in the part that judges, for a picture."""
        found = self.measures[self.part][HEAD]
        told = ", ".join(f"{name} {value:.3f}" for name, value in found.items())
        return f"{self.part}, {self.sizes[self.part][0]:,} proteins\n{told}"

    def verdict(self) -> str:
        """Whether the head is better than what needs no model, in a sentence."""
        measure = MEASURES[self.task][0]
        found = self.measures[self.part]
        ours = found[HEAD][measure]
        others = {
            who: -math.inf if math.isnan(of[measure]) else of[measure]
            for who, of in found.items()
            if who not in (HEAD, FROZEN)
        }
        best = max(others, key=lambda who: others[who])
        better = not math.isnan(ours) and ours > others[best]
        says = "is better than" if better else "is NOT better than"
        chosen = ""
        if self.part == "valid":
            chosen = " (its epoch was chosen on these, so that is too good; hold a test part out)"
        shown = "undefined" if math.isnan(ours) else f"{ours:.3f}"
        return f"{HEAD} {says} {best}: {measure} {shown} and {others[best]:.3f}{chosen}"

    def _confusion_lines(self) -> list[str]:
        if self.confusion is None or len(self.classes) > _MOST_SHOWN:
            return []
        names = [name if len(name) <= 12 else f"{name[:11]}…" for name in self.classes]
        width = max(6, *map(len, names), len(f"{self.confusion.max():,}"))
        lines = [
            f"  {self.part}: rows are what is, columns what {HEAD} says",
            "    " + " " * width + "".join(f"  {name:>{width}}" for name in names),
        ]
        for name, counts in zip(names, self.confusion.tolist(), strict=True):
            cells = "".join(f"  {count:>{width},}" for count in counts)
            lines.append(f"    {name:>{width}}{cells}")
        return lines


def make_report(
    labelled: Labelled,
    parts: Parts,
    fitted: Fitted,
    others: Sequence[Baseline],
    adapter: AdapterReport | None = None,
) -> Report:
    """Judge a head and what it is compared with on every part."""
    known = known_targets(labelled, parts)
    found = [(HEAD, fitted.prediction.values)]
    if fitted.is_adapted and fitted.frozen is not None:
        found.append((FROZEN, fitted.frozen.values))
    found += [(one.name, one.values) for one in others]
    measures = {
        part: {
            who: metrics(labelled.targets[rows], values[rows], labelled.classes)
            for who, values in found
        }
        for part, rows in known.items()
        if len(rows)
    }
    part = "test" if "test" in measures else "valid"
    rows = known[part]
    table = None
    if labelled.classes:
        table = confusion(
            labelled.targets[rows], fitted.prediction.values[rows], len(labelled.classes)
        )
    return Report(
        labelled.task,
        labelled.level,
        labelled.classes,
        {name: (int((parts == place).sum()), len(known[name])) for place, name in enumerate(PARTS)},
        measures,
        part,
        table,
        len(fitted.history.valid_losses),
        fitted.history.best_epoch,
        adapter,
    )
