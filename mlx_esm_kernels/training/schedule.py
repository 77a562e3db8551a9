"""When: the learning rate of each step, the end of a run, and its validations."""

from __future__ import annotations

import math
from collections.abc import Callable

from .settings import Progress, Settings

VALIDATIONS = 10  # in a run, where no interval is given
MINUTES_PER_VALIDATION = 15.0  # at most, where no interval is given: they also save the weights


class Schedule:
    """A run by its steps and by the clock, which starts when this is made.

    Args:
        settings: of the run.
        begun: what it has behind it.
        clock: gives seconds, and never fewer than before.

    Attributes:
        done: how much of the run is over, from 0 to 1, by the limit that is nearer.
    """

    def __init__(self, settings: Settings, begun: Progress, clock: Callable[[], float]) -> None:
        self.settings, self._clock = settings, clock
        self._validated = clock()
        self._started = self._validated - begun.seconds
        self.done = share_done(settings, begun.steps, self.seconds) if begun.steps else 0.0

    @property
    def seconds(self) -> float:
        """Wall time since the start, validations included."""
        return self._clock() - self._started

    def rate(self, steps: int) -> float:
        """The learning rate of the step that follows `steps` steps of this run."""
        settings = self.settings
        return learning_rate(
            settings.learning_rate, steps, settings.warmup, self.done, settings.schedule
        )

    def advance(self, steps: int) -> bool:
        """Note that `steps` steps of this run are taken; whether to validate now."""
        before, self.done = self.done, share_done(self.settings, steps, self.seconds)
        if self.done >= 1:
            return True
        if self.settings.valid_every is not None:
            return steps % self.settings.valid_every == 0
        if self._clock() - self._validated > 60 * MINUTES_PER_VALIDATION:
            return True
        return int(before * VALIDATIONS) < int(self.done * VALIDATIONS)

    def validated(self) -> None:
        """Note that a validation has ended."""
        self._validated = self._clock()


def share_done(settings: Settings, steps: int, seconds: float) -> float:
    """How much of a run is over, from 0 to 1, by the limit that is nearer."""
    by_steps = steps / settings.num_iters if settings.num_iters is not None else 0.0
    if settings.max_minutes is None:
        return by_steps
    return min(1.0, max(by_steps, seconds / 60 / settings.max_minutes))


def learning_rate(
    peak: float, step: int, warmup: int, done: float, schedule: str = "linear"
) -> float:
    """The rate of a step: linear increase over `warmup` steps, times the decay of the whole run.

    Args:
        peak: the highest rate.
        step: steps taken so far, from 0.
        warmup: steps of increase.
        done: the share of the run that is over, from 0 to 1.
        schedule: linear to 0, cosine (half a wave, to 0), constant, or inverse-sqrt: after the
            increase sqrt(warmup / step), whatever the length of the run.
    """
    rise = min(1.0, (step + 1) / warmup) if warmup else 1.0
    if schedule == "inverse-sqrt":
        return peak * min(rise, math.sqrt(max(warmup, 1) / (step + 1)))
    if schedule == "constant":
        return peak * rise
    left = max(0.0, 1 - done)
    return peak * rise * (left if schedule == "linear" else (1 - math.cos(math.pi * left)) / 2)
