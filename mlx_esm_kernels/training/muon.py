"""Muon for the matrices of the layers: MLX's own, at rates that AdamW would have."""

from __future__ import annotations

from collections.abc import Sequence

import mlx.core as mx
import mlx.optimizers as optim

# AdamW's steps have a root mean square of about this many rates, Muon's of 1 / sqrt(longer side):
# so scaled, one rate and one weight decay serve both (Liu et al. 2025, "Muon is scalable for LLM
# training", section 2.2).
ADAMW_STEP = 0.2


def is_of_muon(name: str, weight: mx.array) -> bool:
    """Whether a parameter is a matrix within a layer; tables, heads, vectors and low-rank factors
    are AdamW's."""
    return name.startswith("layers.") and name.endswith(".weight") and weight.ndim == 2


class Muon:
    """Takes steps of some matrices: momentum 0.95, orthogonalised (Jordan et al. 2024).

    Args:
        weight_decay: share of a weight that decays in a step, times the learning rate.
    """

    def __init__(self, weight_decay: float) -> None:
        self._weight_decay = weight_decay
        # The decay is not MLX's: that is added to the gradient, and orthogonalised with it.
        self._optimizer = optim.Muon(learning_rate=0.0, weight_decay=0.0)

    def __call__(
        self,
        weights: Sequence[mx.array],
        gradients: Sequence[mx.array],
        momenta: Sequence[mx.array],
        rate: mx.array,
    ) -> tuple[list[mx.array], list[mx.array]]:
        """The weights after a step, and their momenta.

        Args:
            weights, gradients, momenta: (rows, columns) float32 each; momenta are 0 at first.
            rate: AdamW's learning rate, a scalar.
        """
        new, new_momenta = [], []
        for weight, gradient, momentum in zip(weights, gradients, momenta, strict=True):
            rows, columns = weight.shape
            times = ADAMW_STEP * max(rows, columns) ** 0.5
            # MLX takes steps that are larger by this, so that it is divided out.
            times /= max(1.0, rows / columns) ** 0.5
            self._optimizer.learning_rate = rate * times
            state = {"v": momentum}
            decayed = weight * (1 - rate * self._weight_decay)
            new.append(self._optimizer.apply_single(gradient, decayed, state))
            new_momenta.append(state["v"])
        return new, new_momenta
