"""The training loop: validate, step, validate again when it is time, until a limit or a signal."""

from __future__ import annotations

import math
import time
from collections.abc import Iterator, Sequence

from ..distributed.pulse import Pulse
from ..distributed.ranks import Ranks
from ..system.console import progress
from .events import Listener, StepEnd, ValidationEnd
from .loss import as_arrays
from .schedule import Schedule
from .settings import Outcome, Progress, Settings
from .state import TrainingState
from .validation import Validation


class Diverged(ArithmeticError):
    """Loss, gradient or weights are NaN or infinite; the message says which."""


def train(
    state: TrainingState,
    validation: Validation,
    settings: Settings,
    listeners: Sequence[Listener],
    pulse: Pulse,
    ranks: Ranks,
    begun: Progress,
) -> Outcome:
    """Train until a limit of the settings or a signal; the listeners hear of all that happens.

    Args:
        state, validation, settings: what to train, and how.
        listeners: who hears of it, in this order.
        pulse: tells the time, and whether a signal has come.
        ranks: the processes that train together, all of which are here.
        begun: what the run has behind it where it is gone on with.

    Raises:
        Diverged: loss, gradient or weights are NaN or infinite.
    """
    schedule = Schedule(settings, begun, lambda: pulse.now)
    steps, residues = begun.steps, begun.residues
    seconds, waiting = 0.0, 0.0  # of the steps of this process
    valid = None
    try:
        if not steps or schedule.done >= 1 or begun.validation_due:
            valid = _validate(state, validation, schedule, listeners, pulse, ranks)
        for listener in listeners:
            listener.on_start()
        while schedule.done < 1 and not pulse.received:
            event = _step(state, schedule, steps)
            steps, residues, valid = steps + 1, residues + event.residues, None
            pulse.beat()
            seconds, waiting = seconds + event.seconds, waiting + event.waiting
            is_due = schedule.advance(steps)
            for listener in listeners:
                listener.on_step(event, is_due)
            if is_due:
                valid = _validate(state, validation, schedule, listeners, pulse, ranks)
            made = Progress(steps, residues, schedule.seconds, is_due and valid is None)
            for listener in listeners:
                listener.on_settled(made)
        for listener in listeners:
            listener.on_finish()
    finally:
        for listener in listeners:
            listener.on_close()
    share = waiting / seconds if seconds else 0.0
    loss, bound = (None, None) if valid is None else (valid.loss, valid.bound)
    return Outcome(steps, residues, schedule.seconds, loss, pulse.received, share, bound)


def _step(state: TrainingState, schedule: Schedule, steps: int) -> StepEnd:
    begun, rate = time.perf_counter(), schedule.rate(steps)
    batches = [next(state.batches) for _ in range(schedule.settings.accumulation)]
    waiting = time.perf_counter() - begun
    first, *others = (as_arrays(batch.masked, batch.segment_ids) for batch in batches)
    weight = sum(batch.weight for batch in batches)
    shares = [batch.masked.weight / max(weight, 1) for batch in batches]
    loss, norm = state.optimizer(first, rate, *others, shares=shares)
    state.step += 1
    # A loss that is a number with a gradient that is not spoils the weights in this very step.
    if not math.isfinite(loss) or not math.isfinite(norm):
        raise Diverged(f"the loss is {loss:.3g} and the norm of its gradient {norm:.3g}")
    residues = sum(batch.residues for batch in batches)
    return StepEnd(state.step, loss, rate, residues, time.perf_counter() - begun, waiting)


def _validate(
    state: TrainingState,
    validation: Validation,
    schedule: Schedule,
    listeners: Sequence[Listener],
    pulse: Pulse,
    ranks: Ranks,
) -> ValidationEnd | None:
    """What came of it; None, and nobody hears of it, where a signal comes halfway."""
    totals: dict[str, float] = {"loss": 0.0}
    state.follow_first(ranks)
    losses = _losses(state, validation, ranks)
    with progress(losses, total=len(validation), desc="🔍 validating", unit="step") as bar:
        for name, loss in bar:
            totals[name] = totals.get(name, 0.0) + loss
            pulse.beat()
            if pulse.received:
                return None
    schedule.validated()
    for name, total in totals.items():
        if not math.isfinite(total):
            raise Diverged(f"the validation {name} is {total:.3g}")
    event = ValidationEnd(state.step, **totals)
    for listener in listeners:
        listener.on_validation(event)
    return event


def _losses(
    state: TrainingState, validation: Validation, ranks: Ranks
) -> Iterator[tuple[str, float]]:
    """Shares of the `loss`, and then, where it is measured, of the `bound`."""
    yield from (("loss", share) for share in validation.losses(state.model, ranks))
    yield from (("bound", share) for share in validation.bound_losses(state.model, ranks))
