"""What happens in a run, and who wants to hear of it."""

from __future__ import annotations

from dataclasses import dataclass

from .settings import Progress


@dataclass(frozen=True)
class StepEnd:
    """A step was taken.

    Attributes:
        step: its number, from 1, those of earlier runs counted.
        loss: nats per target, before the step; of `diffusion` the weighted mean, which is a bound
            in nats per residue.
        rate: the learning rate.
        residues: residues in its batch.
        seconds: wall time.
        waiting: seconds of it in which the step waited for its batches.
    """

    step: int
    loss: float
    rate: float
    residues: int
    seconds: float
    waiting: float


@dataclass(frozen=True)
class ValidationEnd:
    """A validation was made.

    Attributes:
        step: after which step.
        loss: nats per held-out target, 15 % of the residues, whatever the objective.
        bound: nats per held-out residue over all mask rates; None where it is not measured.
    """

    step: int
    loss: float
    bound: float | None = None


class Listener:
    """Hears of a run; each of these does nothing unless it is overridden."""

    def on_start(self) -> None:
        """The first step is about to be taken."""

    def on_step(self, event: StepEnd, validation_follows: bool) -> None:
        """A step was taken."""

    def on_validation(self, event: ValidationEnd) -> None:
        """A validation was made."""

    def on_settled(self, progress: Progress) -> None:
        """A step is over, and the validation that was due after it."""

    def on_finish(self) -> None:
        """The last step was taken: a limit was reached, or a signal came."""

    def on_close(self) -> None:
        """The run is over, also where an error ended it."""
