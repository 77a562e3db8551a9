"""What a run leaves behind and shows: bar, lines, metrics.jsonl, loss.png and the weights."""

from __future__ import annotations

import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import mlx.core as mx
from mlx.utils import tree_flatten
from tqdm import tqdm

from ..distributed.pulse import Pulse
from ..pictures.loss_curve import plot_loss
from ..system.bars import number
from ..system.console import progress, say
from ..weights import save_weights
from ..weights.adapter import save_adapter
from .checkpoint import Checkpoint, Checkpoints, save_checkpoint
from .events import Listener, StepEnd, ValidationEnd
from .loop import Diverged
from .recipe import Adapter
from .record import MetricsLog
from .schedule import share_done
from .settings import Progress, Settings
from .state import TrainingState
from .validation import Validation, perplexity

STEPS_PER_ROW = 10  # of metrics.jsonl
SECONDS_PER_PLOT = 60.0  # at least


class Window(Listener):
    """The steps since the last row of the record; others read it."""

    def __init__(self) -> None:
        self.clear()

    def clear(self) -> None:
        """Begin anew."""
        self.losses: list[float] = []
        self.residues, self.seconds, self.rate = 0, 0.0, 0.0
        self.waited = 0.0  # seconds

    def on_step(self, event: StepEnd, validation_follows: bool) -> None:
        self.losses.append(event.loss)
        self.residues += event.residues
        self.seconds += event.seconds
        self.waited += event.waiting
        self.rate = event.rate

    def state(self) -> dict[str, Any]:
        """What is in it, ready for json."""
        return dict(vars(self))

    def restore(self, state: dict[str, Any]) -> None:
        """Go on from a `state`."""
        vars(self).update(state, losses=list(state["losses"]))

    @property
    def loss(self) -> float:
        """The mean loss."""
        return sum(self.losses) / len(self.losses)

    @property
    def speed(self) -> float:
        """Residues per second of training; validations do not count."""
        return self.residues / max(self.seconds, 1e-9)

    @property
    def waiting(self) -> float:
        """The share of the steps' time in which they waited for batches."""
        return self.waited / max(self.seconds, 1e-9)


class Bar(Listener):
    """The bar of the run, by steps or by the clock: whichever limit is nearer."""

    def __init__(self, window: Window, settings: Settings, begun: Progress) -> None:
        self._window, self._settings, self._begun = window, settings, begun
        self._bar: tqdm[Any] | None = None

    def on_start(self) -> None:
        done = share_done(self._settings, self._begun.steps, self._begun.seconds)
        self._bar = progress(total=1.0, initial=done, desc="🚂 training", unit="")

    def on_step(self, event: StepEnd, validation_follows: bool) -> None:
        self._loss = f"loss {self._window.loss:.3f}, {number(self._window.speed)} residues/s"

    def on_settled(self, progress: Progress) -> None:
        assert self._bar is not None
        limit = self._settings.num_iters
        step = f"step {progress.steps:,}" if limit is None else f"{progress.steps:,}/{limit:,}"
        self._bar.set_postfix_str(f"{step}, {self._loss}", refresh=False)
        done = share_done(self._settings, progress.steps, progress.seconds)
        self._bar.update(done - self._bar.n)

    def on_finish(self) -> None:
        self.on_close()

    def on_close(self) -> None:
        if self._bar is not None:
            self._bar.close()


class Verdict(Listener):
    """A line for each validation."""

    def __init__(self, validation: Validation) -> None:
        self._known = f"residue frequencies {perplexity(validation.unigram_loss):.2f}"
        if validation.floor_loss is not None:
            self._known += f", floor {perplexity(validation.floor_loss):.2f}"

    def on_validation(self, event: ValidationEnd) -> None:
        line = f"🔍 step {event.step:,}: held-out perplexity "
        line += f"{perplexity(event.loss):.2f} ({self._known})"
        if event.bound is not None:
            line += f", bound {event.bound:.3f} nats per residue"
        say(line)


class Record(Listener):
    """Rows of metrics.jsonl: every ten steps, and at each validation.

    `train_loss` is the mean of the steps' losses, see `StepEnd`: of mlm nats per target with a
    tenth of them in sight, of diffusion the weighted bound in nats per residue, of mixed nats per
    target at some 30 % masks. `valid_loss` and `valid_bound` are those of `ValidationEnd`.
    """

    def __init__(self, window: Window, log: MetricsLog, validation: Validation, step: int) -> None:
        self._window, self._log = window, log
        self._step = step
        # A run that is gone on with has its last validation in the record already.
        self._is_known = bool(log.rows)
        self._levels = {"unigram_perplexity": perplexity(validation.unigram_loss)}
        if validation.floor_loss is not None:
            self._levels["floor_perplexity"] = perplexity(validation.floor_loss)

    def on_step(self, event: StepEnd, validation_follows: bool) -> None:
        self._step = event.step
        if len(self._window.losses) == STEPS_PER_ROW and not validation_follows:
            self._append()

    def on_validation(self, event: ValidationEnd) -> None:
        self._step = event.step
        if self._window.losses or not self._is_known:
            valid = {"valid_loss": event.loss, "valid_perplexity": perplexity(event.loss)}
            if event.bound is not None:
                valid["valid_bound"] = event.bound
            self._append(**valid, **self._levels)

    def on_close(self) -> None:
        if self._window.losses:
            self._append()

    def _append(self, **columns: float) -> None:
        """Write the steps since the last row as one row, and begin a new window."""
        row: dict[str, float] = {"step": self._step}
        if self._window.losses:
            row["train_loss"] = self._window.loss
            row["learning_rate"] = self._window.rate
            row["residues_per_second"] = round(self._window.speed, 1)
            row["waiting"] = round(self._window.waiting, 4)
        self._window.clear()  # first: what cannot be written is not tried once more at the end
        self._log.append({**row, **columns})


class WeightsSaver(Listener):
    """The weights on the disk: at each validation and at the end, finite and new ones only.

    Args:
        state: has the weights.
        path: where they go: a file, or of an adapter a folder.
        adapter: see `Recipe`.
        begun: steps that the run has behind it.

    Attributes:
        saved_step: the step of the weights that this run saved; None: none yet.
    """

    def __init__(
        self, state: TrainingState, path: Path, adapter: Adapter | None, begun: int = 0
    ) -> None:
        self._state, self.path, self._adapter = state, path, adapter
        self._first_step = state.step - begun
        self.saved_step: int | None = None

    def on_validation(self, event: ValidationEnd) -> None:
        self._save()

    def on_finish(self) -> None:
        self._save()

    def _save(self) -> None:
        step = self._state.step
        if step in (self._first_step, self.saved_step):
            return
        model, adapter = self._state.model, self._adapter
        _require_finite(dict(tree_flatten(model.trainable_parameters())), "the weights")
        if adapter is None:
            save_weights(self.path, model)
        else:
            save_adapter(self.path, model, adapter.low_rank, adapter.base)
        self.saved_step = step


class Checkpointer(Listener):
    """Checkpoints when it is time, and where a signal ends the run.

    Args:
        state, window, log: what a checkpoint is made of.
        checkpoints: where they go, how often, and how many are kept.
        pulse: whether a signal has come.
    """

    def __init__(
        self,
        state: TrainingState,
        window: Window,
        log: MetricsLog,
        checkpoints: Checkpoints,
        pulse: Pulse,
    ) -> None:
        self._state, self._window, self._log = state, window, log
        self._checkpoints, self._pulse = checkpoints, pulse
        self._saved = time.perf_counter()
        self._last: Progress | None = None  # not saved yet

    def on_settled(self, progress: Progress) -> None:
        self._last = progress
        every = self._checkpoints.every
        if every.is_due(progress.steps, time.perf_counter() - self._saved):
            self._save(progress)

    def on_finish(self) -> None:
        if self._pulse.received is not None and self._last is not None:
            self._save(self._last)

    def _save(self, progress: Progress) -> None:
        snapshot = self._state.snapshot()
        _require_finite(snapshot.arrays, "the weights or their moments")
        self._log.sync()
        checkpoint = Checkpoint(
            snapshot, progress, self._checkpoints.recipe, len(self._log.rows), self._window.state()
        )
        save_checkpoint(self._checkpoints.folder, checkpoint, self._checkpoints.keep)
        self._saved, self._last = time.perf_counter(), None


class LossPlot(Listener):
    """loss.png, drawn from the record about once a minute and at the end."""

    def __init__(self, log: MetricsLog, path: Path, objective: str) -> None:
        self._log, self._path, self._objective = log, path, objective
        self._plotted = time.perf_counter()

    def on_validation(self, event: ValidationEnd) -> None:
        if time.perf_counter() - self._plotted > SECONDS_PER_PLOT:
            self._plot()

    def on_close(self) -> None:
        if self._log.rows:
            self._plot()

    def _plot(self) -> None:
        title = self._path.resolve().parent.name
        plot_loss(self._log.rows, self._path, title=title, objective=self._objective)
        self._plotted = time.perf_counter()


def _require_finite(arrays: Mapping[str, mx.array], what: str) -> None:
    """Nothing else is ever written.

    Raises:
        Diverged: one of them holds NaN or infinity.
    """
    if not all(mx.isfinite(array).all() for array in arrays.values()):
        raise Diverged(f"{what} hold NaN or infinite numbers")
