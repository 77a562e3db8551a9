"""The report of an examination: parts are added one by one, and one that fails is a line of it."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from typing import Any

from .. import _ext
from ..system import machine
from ..system.console import progress
from . import examination, trials
from .examination import Variant

FORMAT = "mlx-esm-kernels doctor 1"


@dataclass
class Report:
    """What was found, as plain data.

    Attributes:
        versions: by package.
        system: the operating system.
        chip: of the Metal GPU: name, architecture, generation, memory_gb; None where there is none.
        device: metal, metal-emulator or cpu.
        checks: a result of a case: op, case, dtype, head_dim, name, error and limit (None where
            there is no number), passed, seconds.
        serves: op, dtype, head_dim, call, ours, reason.
        compile: op, dtype, head_dim, and the seconds by which the first run of its cases took
            longer than a second one.
        timings: shape, lengths, segments, dtype, direction, and seconds of ours and mlx.
        problems: sentences about what is wrong.
    """

    versions: dict[str, str] = field(default_factory=dict)
    system: str = "unknown"
    chip: dict[str, Any] | None = None
    device: str = "unknown"
    checks: list[dict[str, Any]] = field(default_factory=list)
    serves: list[dict[str, Any]] = field(default_factory=list)
    compile: list[dict[str, Any]] = field(default_factory=list)
    timings: list[dict[str, Any]] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)

    def to_dict(self) -> dict[str, Any]:
        """Ready for json."""
        return {"format": FORMAT, **asdict(self)}

    @property
    def healthy(self) -> bool:
        """Whether something was checked, and all of it passed."""
        return bool(self.checks) and all(check["passed"] for check in self.checks)

    @contextmanager
    def part(self, name: str) -> Iterator[None]:
        """Within it an error is a problem of the report, and no more."""
        try:
            yield
        except Exception as error:  # whatever it is, the report must go on
            lines = str(error).splitlines() or [""]
            self.problems.append(f"{name}: it raised {type(error).__name__}: {lines[-1]}")


def add_machine(report: Report) -> None:
    """Versions, system, chip and device."""
    with report.part("versions"):
        report.versions = machine.versions("mlx-esm-kernels", "mlx", "numpy")
    with report.part("system"):
        report.system = machine.system_name()
    with report.part("chip"):
        chip = _ext.metal_chip()
        report.chip = None if chip is None else {**chip, "memory_gb": machine.memory_gb()}
    with report.part("device"):
        report.device = examination.device()


def add_checks(report: Report, head_dims: Sequence[int]) -> None:
    """Every op against float64, and how long its first run took longer than the next."""
    found: list[Variant] = []
    with report.part("checks"):
        found = examination.variants(head_dims)
    for variant in progress(found, desc="🩺 checking", unit="variant"):
        ended = False
        with report.part(str(variant)):
            _check(report, variant)
            ended = True
        if not ended:
            report.checks.append(_entry(variant, "", "", math.nan, math.nan, False, 0.0))


def _check(report: Report, variant: Variant) -> None:
    bad: list[str] = []
    first = 0.0
    for finding, seconds in examination.examine(variant):
        first += seconds
        numbers = (finding.error, finding.limit)
        passed = not finding.problem
        report.checks.append(_entry(variant, finding.case, finding.name, *numbers, passed, seconds))
        if finding.problem:
            bad.append(f"{finding.name} of the {finding.case} case: {finding.problem}")
    if bad:
        more = f" (and {len(bad) - 1} more results)" if len(bad) > 1 else ""
        report.problems.append(f"{variant}: {bad[0]}{more}")
    if report.device != "cpu":  # there nothing is compiled
        seconds = max(first - examination.seconds_of_all(variant), 0.0)
        report.compile.append(variant.key() | {"seconds": seconds})


def _entry(
    variant: Variant,
    case: str,
    name: str,
    error: float,
    limit: float,
    passed: bool,
    seconds: float,
) -> dict[str, Any]:
    def number(x: float) -> float | None:
        return x if math.isfinite(x) else None  # json has no other

    return {
        "op": variant.op,
        "case": case,
        "dtype": variant.key()["dtype"],
        "head_dim": variant.head_dim,
        "name": name,
        "error": number(error),
        "limit": number(limit),
        "passed": passed,
        "seconds": seconds,
    }


def add_serves(report: Report, head_dims: Sequence[int]) -> None:
    """Which code serves what, and why."""
    with report.part("what serves"):
        for variant in examination.variants(head_dims, every=True):
            with report.part(f"what serves {variant}"):
                report.serves += examination.serves(variant)


def add_timings(report: Report) -> None:
    """Ours beside MLX's."""
    with report.part("timings"):
        found = trials.trials(on_gpu=report.device != "cpu")
        for trial in progress(found, desc="⏱️ timing", unit="call"):
            with report.part(f"timing {trial.lengths} {trial.shape}"):
                report.timings += trials.timed(trial)
