"""A training run: a state, the listeners of a run's folder, and the loop between them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from ..data.ahead import BatchesAhead
from ..data.masked_batches import MaskedBatches
from ..data.packing import PackedBatches
from ..distributed.pulse import Pulse
from ..distributed.ranks import Ranks
from ..models.dtypes import DTYPES
from ..models.esm1 import ESM1
from ..system.interrupt import StopOnSignal
from .checkpoint import Checkpoint, Checkpoints
from .events import Listener
from .listeners import Bar, Checkpointer, LossPlot, Record, Verdict, WeightsSaver, Window
from .loop import Diverged, train
from .recipe import Adapter
from .record import MetricsLog
from .run_folder import RunFolder
from .settings import Outcome, Progress, Settings, TrainingDiverged
from .state import TrainingState
from .step import TrainStep
from .validation import Validation


@dataclass(frozen=True)
class RunFiles:
    """What a run writes.

    Attributes:
        folder: where the weights go at each validation and at the end, and the plot of the loss.
        log: takes the rows.
        checkpoints: where, how often and of what checkpoints are made; None: none are.
        reports: who else hears of the run, after all others.
        adapter: of low-rank products, which are all that is trained then; None: the whole model is.
    """

    folder: RunFolder
    log: MetricsLog
    checkpoints: Checkpoints | None = None
    reports: Sequence[Listener] = ()
    adapter: Adapter | None = None

    @property
    def path(self) -> Path:
        """Where the weights go, or the adapter."""
        return self.folder.weights if self.adapter is None else self.folder.adapter


def new_state(
    model: ESM1,
    batches: PackedBatches,
    settings: Settings,
    *,
    earlier_steps: int = 0,
    ranks: Ranks | None = None,
) -> TrainingState:
    """The state of a model that is about to be trained: moments at 0, other batches than before.

    Args:
        model: the model.
        batches: what to train on, all of one shape.
        settings: how to train.
        earlier_steps: steps that the weights have behind them.
        ranks: the processes that train together, which divide the rows of each batch among
            them; None: this one alone.
    """
    ranks = Ranks() if ranks is None else ranks
    if earlier_steps:
        batches.epoch = earlier_steps  # not the order and crops of the run before
    model.checkpointing = settings.checkpointing
    optimizer = TrainStep(
        model,
        weight_decay=settings.weight_decay,
        clip_norm=settings.clip_norm,
        betas=settings.betas,
        optimizer=settings.optimizer,
        dtype=DTYPES[settings.precision],
        seed=settings.seed,
        ranks=ranks,
    )
    part = (ranks.number, ranks.count)
    seed = (settings.seed, earlier_steps)
    masked = MaskedBatches(batches, model.alphabet, seed, part, settings.objective)
    # Those of this step may be taken at once, and those of the next one made meanwhile.
    ahead = BatchesAhead(masked, 2 * settings.accumulation + 2)
    return TrainingState(model, optimizer, ahead, earlier_steps=earlier_steps)


def run_training(
    state: TrainingState,
    validation: Validation,
    settings: Settings,
    files: RunFiles | None,
    begun: Checkpoint | None = None,
    ranks: Ranks | None = None,
) -> Outcome:
    """Train until a limit, Ctrl-C or SIGTERM; then the weights are saved.

    Args:
        state: what to train, and where it stands.
        validation: what to compare with.
        settings: how to train.
        files: what is written; None: another process of the run does that.
        begun: the checkpoint that `state` was restored from, to go on from there.
        ranks: the processes that train together; None: this one alone.

    Raises:
        TrainingDiverged: loss or weights are NaN or infinite. The weights on the disk are those of
            the last validation.
        OSError: the disk does not take the weights or the record.
    """
    ranks = Ranks() if ranks is None else ranks
    progress = Progress() if begun is None else begun.progress
    window, saver = Window(), None
    if begun is not None:
        window.restore(begun.window)
    with StopOnSignal() as stop, Pulse(ranks, stop) as pulse, state.batches:
        listeners: list[Listener] = []
        if files is not None:
            saver = WeightsSaver(state, files.path, files.adapter, progress.steps)
            listeners = [
                window,  # first: the others read it
                Bar(window, settings, progress),
                Verdict(validation),
                Record(window, files.log, validation, state.step),
                saver,
                LossPlot(files.log, files.folder.plot, settings.objective),
            ]
            if files.checkpoints is not None:
                listeners.append(Checkpointer(state, window, files.log, files.checkpoints, pulse))
            listeners.extend(files.reports)
        try:
            return train(state, validation, settings, listeners, pulse, ranks, progress)
        except Diverged as error:
            raise TrainingDiverged(
                f"Training stopped at step {state.step}: {error}. {_what_is_kept(saver)} A "
                f"learning rate below {settings.learning_rate:g} or a longer warm-up usually helps."
            ) from None


def _what_is_kept(saver: WeightsSaver | None) -> str:
    if saver is None:
        return "Process 0 says what is kept."
    if saver.saved_step is not None:
        return f"{saver.path} holds the weights of step {saver.saved_step}."
    if saver.path.exists():
        return f"{saver.path} is as it was before this run."
    return "No weights were saved."
