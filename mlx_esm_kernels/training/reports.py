"""The record of a run sent on, to Weights & Biases or TensorBoard, never at the run's cost."""

from __future__ import annotations

import os
import time
import uuid
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from importlib.util import find_spec
from typing import Any, Protocol

from ..system.console import say
from ..system.errors import UserError
from .config_file import Tables, config_text
from .events import Listener, ValidationEnd
from .record import MetricsLog, Row
from .run_folder import TENSORBOARD, WANDB, RunFolder
from .settings import Progress

PROJECT = "mlx-esm-kernels"  # of Weights & Biases, unless WANDB_PROJECT says another
SECONDS_TO_UPLOAD = 120.0  # at the end of a run
RUN_ID = "mlx-esm-run-id"  # a file in the run's wandb/
# The package of each, by the name that pip and Python have for it.
_MODULES = {"wandb": "wandb", "tensorboard": "tensorboardX"}
REPORTS = tuple(_MODULES)


class ReportError(UserError):
    """A run cannot be reported; not a step has been taken yet."""


class ReportWarning(UserWarning):
    """The rest of a run is not reported."""


class Sink(Protocol):
    """Where rows go; any method may raise anything.

    Attributes:
        goes_on: rows of the same run are there already.
        where: how to look at them, in words.
    """

    goes_on: bool
    where: str

    def send(self, row: Row) -> None:
        """Take a row, whose `step` is not below that of the last one."""

    def close(self, is_whole: bool) -> None:
        """Take no more; `is_whole`: the run came to an end of its own."""


class Report(Listener):
    """Sends the rows of the record to a sink as they come.

    An error of the sink is one warning, after which it gets no more; the run goes on. A sink that
    is new to a run that has rows already gets those first.

    Args:
        name: what the warning calls it.
        sink: takes the rows.
        log: has them; its own listener must come before this one.
    """

    def __init__(self, name: str, sink: Sink, log: MetricsLog) -> None:
        self._name, self._log, self._is_whole = name, log, False
        self._sink: Sink | None = sink
        self._sent = len(log.rows) if sink.goes_on else 0

    def on_validation(self, event: ValidationEnd) -> None:
        self._send()

    def on_settled(self, progress: Progress) -> None:
        self._send()

    def on_finish(self) -> None:
        self._is_whole = True

    def on_close(self) -> None:
        self._send()
        sink, self._sink = self._sink, None
        if sink is not None:
            self._guarded(lambda: sink.close(self._is_whole))

    def _send(self) -> None:
        while self._sink is not None and self._sent < len(self._log.rows):
            row, sink = self._log.rows[self._sent], self._sink
            self._sent += 1
            self._guarded(lambda sink=sink, row=row: sink.send(row))  # type: ignore[misc]

    def _guarded(self, call: Callable[[], None]) -> None:
        try:
            call()
        except Exception as error:  # whatever theirs is: a run of a week must not end for it
            self._sink = None
            warnings.warn(
                f"{self._name} gets no more of this run: {_in_a_line(error)}. The run goes on; all "
                f"is in {self._log.path} too.",
                ReportWarning,
                stacklevel=2,
            )


def require_reports(names: Sequence[str]) -> None:
    """Refuse services whose package is not installed.

    Raises:
        ReportError: it is not; the message has the command that installs it.
    """
    for name in names:
        if find_spec(_MODULES[name]) is None:
            raise ReportError(
                f"{name} needs a package that is not installed: pip install {_MODULES[name]}"
            )


def open_reports(
    names: Sequence[str], folder: RunFolder, log: MetricsLog, tables: Tables
) -> list[Listener]:
    """The listeners that report a run, each once.

    Args:
        names: some of REPORTS.
        folder: of the run; what goes on there goes on in the same report.
        log: the rows that are there already, and those that will come.
        tables: the run's configuration.

    Raises:
        ReportError: a service cannot begin.
    """
    opened: list[Listener] = []
    for name in dict.fromkeys(names):
        opener: Callable[[RunFolder, MetricsLog, Tables], Sink] = _OPENERS[name]
        sink = opener(folder, log, tables)
        opened.append(Report(name, sink, log))
        say(f"📡 reported to {name}: {sink.where}")
    return opened


@contextmanager
def _beginning(name: str, advice: str) -> Iterator[None]:
    """Within it, any error is theirs, and a sentence."""
    try:
        yield
    except Exception as error:
        raise ReportError(
            f"{name} could not begin: {_in_a_line(error)}. {advice}, or leave out --report-to "
            f"{name}."
        ) from None


class _Wandb:
    """A run of Weights & Biases, whose id is kept in the run's folder."""

    def __init__(self, folder: RunFolder, log: MetricsLog, tables: Tables) -> None:
        import wandb

        place = folder.weights.parent / WANDB
        place.mkdir(exist_ok=True)
        known = place / RUN_ID
        self.goes_on = known.is_file()
        run_id = known.read_text("utf-8").strip() if self.goes_on else uuid.uuid4().hex[:16]
        with _beginning("wandb", "Log in (wandb login), set WANDB_MODE=offline in the environment"):
            self._run = wandb.init(
                project=os.environ.get("WANDB_PROJECT", PROJECT),
                name=folder.weights.resolve().parent.name,
                id=run_id,
                resume="allow",
                dir=str(folder.weights.parent),
                # What is said on the terminal stays there, and theirs does not disturb it.
                # What is not uploaded soon after the end is on the disk, for `wandb sync`.
                settings=wandb.Settings(
                    console="off", silent=True, finish_timeout=SECONDS_TO_UPLOAD
                ),
            )
            config = {key: value for table in tables.values() for key, value in table.items()}
            self._run.config.update(config, allow_val_change=True)
        known.write_text(run_id + "\n", "utf-8")
        self.where = self._run.url or "nowhere, as WANDB_MODE says"
        if self._run.offline:
            self.where = f"wandb sync {os.path.dirname(self._run.dir)}"
        self._next = self._run.step  # what was sent before a kill and is told again is left out

    def send(self, row: Row) -> None:
        values = {key: value for key, value in row.items() if key != "step"}
        if row["step"] >= self._next:
            self._run.log(values, step=int(row["step"]))

    def close(self, is_whole: bool) -> None:
        self._run.finish(exit_code=0 if is_whole else 1)


class _TensorBoard:
    """An event file of TensorBoard in the run's folder, written as rows come."""

    def __init__(self, folder: RunFolder, log: MetricsLog, tables: Tables) -> None:
        # Not its SummaryWriter, which waits for ever once its thread has met a full disk.
        from tensorboardX.event_file_writer import EventsWriter
        from tensorboardX.proto.event_pb2 import Event, SessionLog
        from tensorboardX.summary import scalar, text

        place = folder.weights.parent / TENSORBOARD
        self.goes_on = place.is_dir() and any(place.iterdir())
        place.mkdir(exist_ok=True)
        self.where = f"tensorboard --logdir {place.parent}"
        self._event, self._scalar = Event, scalar
        with _beginning("tensorboard", "Mend that"):
            self._writer = EventsWriter(str(place / "events"), f".{time.time_ns()}")
        if self.goes_on:
            # Steps after the checkpoint, which come again, take the place of those before.
            begins = SessionLog(status=SessionLog.START)
            self._write(log.last_step + 1, session_log=begins)
        lines = "".join(f"    {line}\n" for line in config_text(tables).splitlines())
        self._write(log.last_step, summary=text("config", lines))
        self._writer.flush()

    def send(self, row: Row) -> None:
        for key, value in row.items():
            if key != "step":
                self._write(int(row["step"]), summary=self._scalar(key, value))
        self._writer.flush()

    def close(self, is_whole: bool) -> None:
        self._writer.close()

    def _write(self, step: int, **what: Any) -> None:
        self._writer.write_event(self._event(wall_time=time.time(), step=step, **what))


_OPENERS: Mapping[str, Callable[[RunFolder, MetricsLog, Tables], Sink]] = {
    "wandb": _Wandb,
    "tensorboard": _TensorBoard,
}


def _in_a_line(error: Exception) -> str:
    return " ".join(f"{error}".split()).rstrip(".") or type(error).__name__
