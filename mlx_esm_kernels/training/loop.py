"""The training loop: steps, validations, a record of both, and weights that are safe."""

from __future__ import annotations

import math
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import mlx.core as mx
import numpy as np
from mlx.utils import tree_flatten

from ..data.alphabet import Alphabet
from ..data.masking import mask_tokens
from ..data.packing import PackedBatches
from ..models.esm1 import ESM1
from ..pictures.loss_curve import plot_loss
from ..system.console import progress, say
from ..system.errors import UserError
from ..system.interrupt import StopOnSignal
from ..weights import save_weights
from .loss import as_arrays
from .record import MetricsLog
from .schedule import learning_rate
from .step import TrainStep
from .validation import Validation, perplexity

STEPS_PER_ROW = 10  # of metrics.jsonl
VALIDATIONS = 10  # in a run, where no interval is given
MINUTES_PER_VALIDATION = 15.0  # at most, where no interval is given: they also save the weights
SECONDS_PER_PLOT = 60.0  # at least


class TrainingDiverged(UserError):
    """The loss is no longer a number; the message says what to do."""


@dataclass(frozen=True)
class Settings:
    """How to train.

    Attributes:
        num_iters: steps to take; None: as many as there is time for.
        max_minutes: time to take, validations included; None: no limit. Whichever limit comes
            first ends the run, and the learning rate decays towards it.
        learning_rate: the highest one, reached after `warmup` steps.
        warmup: steps of linear increase.
        weight_decay: see `TrainStep`.
        clip_norm: see `TrainStep`.
        valid_every: steps between validations; None: ten times in a run, and every 15 minutes.
        seed: of the questions asked; the batches bring their own.

    Raises:
        ValueError: there is no limit at all.
    """

    num_iters: int | None
    learning_rate: float
    warmup: int
    max_minutes: float | None = None
    weight_decay: float = 0.01
    clip_norm: float = 1.0
    valid_every: int | None = None
    seed: int = 42

    def __post_init__(self) -> None:
        if self.num_iters is None and self.max_minutes is None:
            raise ValueError("[Settings] give num_iters, max_minutes, or both.")


@dataclass(frozen=True)
class Outcome:
    """What a run did.

    Attributes:
        steps: steps taken. residues: residues seen, with repetition.
        seconds: wall time.
        valid_loss: nats per question at the end; None where the run was stopped before.
        stopped_by: the signal that stopped it, or None.
    """

    steps: int
    residues: int
    seconds: float
    valid_loss: float | None
    stopped_by: int | None


@dataclass
class _Window:
    """The steps since the last row of the record."""

    losses: list[float] = field(default_factory=list)
    residues: int = 0
    seconds: float = 0.0
    rate: float = 0.0  # of its last step

    @property
    def loss(self) -> float:
        return sum(self.losses) / len(self.losses)

    @property
    def speed(self) -> float:
        """Residues per second of training; validations do not count."""
        return self.residues / max(self.seconds, 1e-9)

    def summary(self) -> str:
        return f"loss {self.loss:.3f}, {self.speed:,.0f} residues/s"


class Trainer:
    """Trains a model in place.

    Args:
        model: the model.
        alphabet: of its tokens.
        batches: what to train on, all of one shape.
        validation: what to compare with.
        settings: how to train.
        log: takes the rows; step numbers go on from its last one.
        weights_path: the weights go there at each validation, at the end, and on Ctrl-C.
        plot_path: the plot of the loss goes there.
    """

    def __init__(
        self,
        model: ESM1,
        alphabet: Alphabet,
        batches: PackedBatches,
        validation: Validation,
        settings: Settings,
        *,
        log: MetricsLog,
        weights_path: Path,
        plot_path: Path,
    ) -> None:
        self.model, self.alphabet, self.batches = model, alphabet, batches
        self.validation, self.settings, self.log = validation, settings, log
        self.weights_path, self.plot_path = weights_path, plot_path
        self._train_step = TrainStep(
            model, weight_decay=settings.weight_decay, clip_norm=settings.clip_norm
        )
        self._earlier_steps = log.last_step
        if self._earlier_steps:
            batches.epoch = self._earlier_steps  # not the order and crops of the run before
        self._steps = self._residues = self._saved_steps = 0  # of this run
        self._valid_loss: float | None = None
        self._window = _Window()
        self._started = self._validated = self._plotted = time.perf_counter()

    def run(self) -> Outcome:
        """Train until a limit, Ctrl-C or SIGTERM; then the weights are saved.

        Raises:
            TrainingDiverged: loss or weights are NaN or infinite. The weights on the disk are
                those of the last validation.
            OSError: the disk does not take the weights or the record.
        """
        self._started = self._validated = self._plotted = time.perf_counter()
        with StopOnSignal() as stop:
            try:
                self._validate(stop)
                self._train(stop)
                self._save()
            finally:
                if self._window.losses:
                    self._log_row()
                if self.log.rows:
                    self._plot()
        seconds = time.perf_counter() - self._started
        return Outcome(self._steps, self._residues, seconds, self._valid_loss, stop.received)

    def _train(self, stop: StopOnSignal) -> None:
        questions = self._questions()
        done = 0.0
        with progress(total=self.settings.num_iters, desc="🚂 training", unit="step") as bar:
            while done < 1 and not stop.received:
                begun = time.perf_counter()
                arrays, residues = next(questions)
                self._step(arrays, residues, self._rate(done))
                self._window.seconds += time.perf_counter() - begun
                bar.set_postfix_str(self._window.summary(), refresh=False)
                bar.update()
                before, done = done, self._share_done()
                if self._is_validation_due(before, done):
                    self._validate(stop)
                elif len(self._window.losses) == STEPS_PER_ROW:
                    self._log_row()

    def _questions(self) -> Iterator[tuple[tuple[mx.array, ...], int]]:
        """The arguments of each step and the residues in it, epoch after epoch, without end."""
        rng = np.random.default_rng([self.settings.seed, self._earlier_steps])
        alphabet = self.alphabet
        special = [i for i, token in enumerate(alphabet.tokens) if token.startswith("<")]
        special.remove(alphabet.unk_idx)  # an unreadable residue is one all the same
        while True:
            for batch in self.batches:
                masked = mask_tokens(batch.tokens, batch.segment_ids, alphabet, rng)
                residues = batch.tokens.size - int(np.isin(batch.tokens, special).sum())
                yield as_arrays(masked, batch.segment_ids), residues

    def _rate(self, done: float) -> float:
        settings = self.settings
        return learning_rate(settings.learning_rate, self._steps, settings.warmup, done)

    def _share_done(self) -> float:
        """How much of the run is over, from 0 to 1, by the limit that is nearer."""
        settings = self.settings
        by_steps = self._steps / settings.num_iters if settings.num_iters is not None else 0.0
        if settings.max_minutes is None:
            return by_steps
        minutes = (time.perf_counter() - self._started) / 60
        return min(1.0, max(by_steps, minutes / settings.max_minutes))

    def _is_validation_due(self, before: float, done: float) -> bool:
        if done >= 1:
            return True
        if self.settings.valid_every is not None:
            return self._steps % self.settings.valid_every == 0
        if time.perf_counter() - self._validated > 60 * MINUTES_PER_VALIDATION:
            return True
        return int(before * VALIDATIONS) < int(done * VALIDATIONS)

    def _step(self, arrays: tuple[mx.array, ...], residues: int, rate: float) -> None:
        loss, norm = self._train_step(arrays, rate)
        self._steps += 1
        self._residues += residues
        self._valid_loss = None
        self._window.losses.append(loss)
        self._window.residues += residues
        self._window.rate = rate
        # A loss that is a number with a gradient that is not spoils the weights in this very step.
        if not math.isfinite(loss) or not math.isfinite(norm):
            raise self._diverged(f"the loss is {loss:.3g} and the norm of its gradient {norm:.3g}")

    def _validate(self, stop: StopOnSignal) -> None:
        """Validate, record and say it, save; nothing of it if the person stops it halfway."""
        total = 0.0
        losses = self.validation.losses(self.model)
        with progress(losses, total=len(self.validation), desc="🔍 validating") as bar:
            for loss in bar:
                total += loss
                if stop.received:
                    return
        self._validated = time.perf_counter()
        if not math.isfinite(total):
            raise self._diverged(f"the validation loss is {total:.3g}")
        self._valid_loss = total
        say(self._verdict(total))
        if self._window.losses or not self._earlier_steps:
            self._log_row(**self._valid_columns(total))
        self._save()
        if self._validated - self._plotted > SECONDS_PER_PLOT:
            self._plot()

    def _verdict(self, valid_loss: float) -> str:
        known = f"residue frequencies {perplexity(self.validation.unigram_loss):.2f}"
        if self.validation.floor_loss is not None:
            known += f", floor {perplexity(self.validation.floor_loss):.2f}"
        line = f"🔍 step {self._earlier_steps + self._steps:,}: held-out perplexity "
        line += f"{perplexity(valid_loss):.2f} ({known})"
        return f"{line}, {self._window.speed:,.0f} residues/s" if self._window.losses else line

    def _valid_columns(self, valid_loss: float) -> dict[str, float]:
        columns = {
            "valid_loss": valid_loss,
            "valid_perplexity": perplexity(valid_loss),
            "unigram_perplexity": perplexity(self.validation.unigram_loss),
        }
        if self.validation.floor_loss is not None:
            columns["floor_perplexity"] = perplexity(self.validation.floor_loss)
        return columns

    def _log_row(self, **columns: float) -> None:
        """Write the steps since the last row as one row, and begin a new window."""
        row: dict[str, float] = {"step": self._earlier_steps + self._steps}
        if self._window.losses:
            row["train_loss"] = self._window.loss
            row["learning_rate"] = self._window.rate
            row["residues_per_second"] = round(self._window.speed, 1)
        self.log.append({**row, **columns})
        self._window = _Window()

    def _save(self) -> None:
        """Save weights that are new and finite."""
        if self._steps == self._saved_steps:
            return
        parameters = dict(tree_flatten(self.model.parameters()))
        if not all(mx.isfinite(parameter).all() for parameter in parameters.values()):
            raise self._diverged("the weights hold NaN or infinite numbers")
        step = self._earlier_steps + self._steps
        save_weights(self.weights_path, self.model, {"step": str(step)})
        self._saved_steps = self._steps

    def _plot(self) -> None:
        plot_loss(self.log.rows, self.plot_path, title=self.plot_path.resolve().parent.name)
        self._plotted = time.perf_counter()

    def _diverged(self, what: str) -> TrainingDiverged:
        step = self._earlier_steps + self._steps
        if self._saved_steps:
            kept = f"{self.weights_path} holds the weights of step "
            kept += f"{self._earlier_steps + self._saved_steps}."
        elif self.weights_path.exists():
            kept = f"{self.weights_path} is as it was before this run."
        else:
            kept = "No weights were saved."
        return TrainingDiverged(
            f"Training stopped at step {step}: {what}. {kept} A learning rate below "
            f"{self.settings.learning_rate:g} or a longer warm-up usually helps."
        )
