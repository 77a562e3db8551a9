"""What a report is made of: lines of a table with their targets, and the timings behind them."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import Any

from harness.command import PACKAGES
from harness.measuring import installed

from mlx_esm_kernels.data.proteins import Proteins

LIMIT = " at the GEMM rate"
Shape = tuple[int, ...]


@dataclass
class Line:
    """A line of the table.

    Attributes:
        work, against: what is compared.
        target: to reach; unit x: the other's time over ours; %: a share.
        at_most: the target is not to be exceeded.
        values: what was measured, by shape; empty where it could not be.
        limits: what it would be if ours did its useful work at the machine's GEMM rate.
        note: why it could not be, or what else to know.
    """

    work: str
    against: str
    target: float
    unit: str = "x"
    at_most: bool = False
    values: dict[str, float] = field(default_factory=dict)
    limits: dict[str, float] = field(default_factory=dict)
    note: str = ""

    @property
    def worst(self) -> str | None:
        """The shape that decides."""
        if not self.values:
            return None
        extreme = max if self.at_most else min
        return extreme(self.values, key=self.values.__getitem__)

    @property
    def met(self) -> bool | None:
        if self.worst is None:
            return None
        value = self.values[self.worst]
        return value <= self.target if self.at_most else value >= self.target


@dataclass
class Part:
    """What a part found. timings: rows of the second table, as plain dicts."""

    lines: list[Line] = field(default_factory=list)
    timings: list[dict[str, Any]] = field(default_factory=list)

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)

    @classmethod
    def from_dict(cls, content: dict[str, Any]) -> Part:
        return cls([Line(**line) for line in content["lines"]], content["timings"])


@dataclass(frozen=True)
class Setting:
    """proteins and what they are; quick: tiny shapes, to see that everything runs; esm_cpp: a
    Python that has esm-cpp, or nothing."""

    proteins: Proteins
    where: str
    fasta: str | None
    quick: bool
    repeats: int = 7
    budget_s: float = 3.0
    esm_cpp: str = ""


def in_words(shape: Shape) -> str:
    return "(" + ", ".join(map(str, shape)) + ")"


def missing(way: str) -> str:
    """The package that is not there, or nothing."""
    return next((package for package in PACKAGES[way] if not installed(package)), "")


def why_missing(way: str) -> str:
    """Why a way was not timed, as the end of a sentence."""
    if way.startswith("esm-cpp"):
        return "esm-cpp needs --esm-cpp PYTHON"
    return f"{missing(way) or way} is not installed"


def line(
    work: str,
    against: str,
    key: str,
    target: float,
    found: dict[str, dict[str, float]],
    **more: Any,
) -> Line:
    """A line of the values under `key`; without any it says why."""
    values = {label: ratios[key] for label, ratios in found.items() if key in ratios}
    limits = {
        label: ratios[key + LIMIT] for label, ratios in found.items() if key + LIMIT in ratios
    }
    note = "" if values else f"not measured: {why_missing(key)}"
    return Line(work, against, target, values=values, limits=limits, note=note, **more)
