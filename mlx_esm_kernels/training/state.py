"""All that the next step depends on, as one value that can be kept and gone back to."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import mlx.core as mx
from mlx.utils import tree_flatten

from ..data.ahead import BatchesAhead
from ..distributed.ranks import Ranks
from ..models.esm1 import ESM1
from .step import TrainStep

WEIGHTS = "weights."


@dataclass(frozen=True)
class Snapshot:
    """A training state at one moment. It does not change when training goes on.

    Attributes:
        arrays: `weights.NAME` of each parameter that is trained, and what `TrainStep.arrays` gives.
        numbers: `step`, `optimizer_steps`, `loss_scale`, and `place` in the data with the state of
            chance; plain numbers and texts, ready for json.
    """

    arrays: dict[str, mx.array]
    numbers: dict[str, Any]


class TrainingState:
    """A model in training: its weights, both moments, its step, and its place in the data.

    Nothing else has a part in a step: two runs from the same snapshot take the same steps, bit for
    bit on the same machine.

    Args:
        model: the model, which is trained in place.
        optimizer: takes its steps.
        batches: what it is trained on.
        earlier_steps: steps that the weights have behind them.
    """

    def __init__(
        self,
        model: ESM1,
        optimizer: TrainStep,
        batches: BatchesAhead,
        *,
        earlier_steps: int = 0,
    ) -> None:
        self.model, self.optimizer, self.batches = model, optimizer, batches
        self.step = earlier_steps

    def snapshot(self) -> Snapshot:
        """This moment."""
        weights = dict(tree_flatten(self.model.trainable_parameters()))
        return Snapshot(
            {
                **{WEIGHTS + name: weight for name, weight in weights.items()},
                **self.optimizer.arrays(),
            },
            {
                "step": self.step,
                "optimizer_steps": self.optimizer.steps,
                "loss_scale": [self.optimizer.scale, self.optimizer.steps_at_scale],
                "place": self.batches.place(),
            },
        )

    def follow_first(self, ranks: Ranks) -> None:
        """Take weights and moments from the first of the processes.

        They are the same in all, unless machines of several kinds round differently.
        """
        if ranks.count == 1:
            return
        arrays = self.snapshot().arrays
        found = ranks.arrays_of_first(list(arrays.values()))
        self._set_arrays(dict(zip(arrays, found, strict=True)), self.optimizer.steps)

    def restore(self, snapshot: Snapshot) -> None:
        """Go back to a moment of a state of the same model, data and settings.

        Raises:
            ValueError: the arrays are not those of this model.
        """
        trained = dict(tree_flatten(self.model.trainable_parameters()))
        names = {WEIGHTS + name for name in trained}
        found = {name for name in snapshot.arrays if name.startswith(WEIGHTS)}
        if names != found:
            odd = sorted(names ^ found)
            raise ValueError(
                f"[TrainingState] the snapshot must have the parameters of this model; they differ "
                f"in {odd[0]}" + (f" and {len(odd) - 1} more." if len(odd) > 1 else ".")
            )
        self._set_arrays(snapshot.arrays, snapshot.numbers["optimizer_steps"])
        self.optimizer.scale, self.optimizer.steps_at_scale = snapshot.numbers["loss_scale"]
        self.batches.go_to(snapshot.numbers["place"])
        self.step = snapshot.numbers["step"]

    def _set_arrays(self, arrays: dict[str, mx.array], optimizer_steps: int) -> None:
        names = sorted(name for name in arrays if name.startswith(WEIGHTS))
        # What is frozen is not among them.
        weights = [(name[len(WEIGHTS) :], arrays[name]) for name in names]
        self.model.load_weights(weights, strict=False)
        self.optimizer.set_arrays(arrays, optimizer_steps)
