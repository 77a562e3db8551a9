"""How to train, and what came of it."""

from __future__ import annotations

from dataclasses import dataclass

from ..models.config import OBJECTIVES
from ..models.dtypes import DTYPES
from ..system.errors import UserError

# Shorter memories than Adam's 0.9 and 0.999, for runs of some hundred or thousand steps: on the
# sample 0.8 saves a quarter of the steps that 0.9 needs. 0.98 is fairseq's for RoBERTa.
BETAS = (0.8, 0.98)
OPTIMIZERS = ("adamw", "muon")
SCHEDULES = ("linear", "cosine", "constant", "inverse-sqrt")


class TrainingDiverged(UserError):
    """The loss is no longer a number; the message says what to do."""


@dataclass(frozen=True)
class Settings:
    """How to train.

    Attributes:
        num_iters: steps to take; None: as many as there is time for.
        max_minutes: time to take, validations included; None: no limit. Whichever limit comes
            first ends the run, and a learning rate that ends at 0 does so there.
        learning_rate: the highest one, reached after `warmup` steps.
        warmup: steps of linear increase.
        weight_decay: see `TrainStep`.
        clip_norm, betas: see `TrainStep`.
        optimizer: one of OPTIMIZERS, see `TrainStep`.
        schedule: how the learning rate goes down over the run; one of SCHEDULES.
        accumulation: batches of a step.
        checkpointing: see `ESM1`.
        precision: of activations and their gradients, the name of a dtype; see `TrainStep`.
        valid_every: steps between validations; None: ten times in a run, and every 15 minutes.
        seed: of the masks; the batches bring their own.
        objective: how proteins are masked and weighted, one of OBJECTIVES, see `mask_for`.

    Raises:
        ValueError: there is no limit at all, or a value means nothing.
    """

    num_iters: int | None
    learning_rate: float
    warmup: int
    max_minutes: float | None = None
    weight_decay: float = 0.01
    clip_norm: float = 1.0
    valid_every: int | None = None
    seed: int = 42
    betas: tuple[float, float] = BETAS
    optimizer: str = "adamw"
    schedule: str = "linear"
    accumulation: int = 1
    checkpointing: bool = False
    precision: str = "float32"
    objective: str = "mlm"

    def __post_init__(self) -> None:
        object.__setattr__(self, "betas", tuple(self.betas))  # of json, which has lists
        if not all(0 <= beta < 1 for beta in self.betas) or len(self.betas) != 2:
            raise ValueError(f"[Settings] betas must be two of [0, 1); got {self.betas}.")
        if self.optimizer not in OPTIMIZERS:
            raise ValueError(
                f"[Settings] optimizer must be one of {OPTIMIZERS}; got {self.optimizer!r}."
            )
        if self.schedule not in SCHEDULES:
            raise ValueError(
                f"[Settings] schedule must be one of {SCHEDULES}; got {self.schedule!r}."
            )
        if self.precision not in DTYPES:
            raise ValueError(
                f"[Settings] precision must be one of {tuple(DTYPES)}; got {self.precision!r}."
            )
        if self.objective not in OBJECTIVES:
            raise ValueError(
                f"[Settings] objective must be one of {OBJECTIVES}; got {self.objective!r}."
            )
        if self.accumulation < 1:
            raise ValueError(f"[Settings] accumulation must be positive; got {self.accumulation}.")
        if self.num_iters is None and self.max_minutes is None:
            raise ValueError("[Settings] give num_iters, max_minutes, or both.")


@dataclass(frozen=True)
class Progress:
    """What a run has behind it.

    Attributes:
        steps: steps taken. residues: residues seen, with repetition.
        seconds: wall time, validations included.
        validation_due: a validation is still to be made, as a signal came halfway.
    """

    steps: int = 0
    residues: int = 0
    seconds: float = 0.0
    validation_due: bool = False


@dataclass(frozen=True)
class Outcome:
    """What a run did.

    Attributes:
        steps: steps taken. residues: residues seen, with repetition.
        seconds: wall time.
        valid_loss, valid_bound: see `ValidationEnd`, of the end; None where the run was stopped
            before, and the bound where nobody measures it.
        stopped_by: the signal that stopped it, or None.
        waiting: share of the time of the steps in which they waited for batches; of this process.
    """

    steps: int
    residues: int
    seconds: float
    valid_loss: float | None
    stopped_by: int | None
    waiting: float = 0.0
    valid_bound: float | None = None
