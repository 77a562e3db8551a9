"""The loss of masked language modelling, on the masked positions alone."""

from __future__ import annotations

import mlx.core as mx
import numpy as np

from ..data.masking import Masked
from ..models.esm1 import ESM1
from ..models.masked_positions import masked_logits


def masked_loss(
    model: ESM1,
    inputs: mx.array,
    segment_ids: mx.array,
    positions: mx.array,
    targets: mx.array,
    weights: mx.array,
) -> mx.array:
    """Weighted mean cross-entropy in nats over the targets, a float32 scalar.

    `sum_m w_m (logsumexp(z_m) - z_m[target_m]) / sum_m w_m`, with the LM head run on the M masked
    positions alone. No target at all gives 0. Where all weigh 1 it is the mean over the targets;
    with the weights of the `diffusion` objective, a bound in nats per residue.

    Args:
        model: has `encode` (B, L) -> (B, L, C) and `head` (M, C) -> (M, V).
        inputs, segment_ids: (B, L) integer.
        positions, targets: (M,) integer, see `Masked`.
        weights: (M,) float32.
    """
    logits = masked_logits(model, inputs, segment_ids, positions)  # (M, V)
    at_target = mx.take_along_axis(logits, targets[:, None].astype(mx.int32), axis=-1)[:, 0]
    nats = mx.logsumexp(logits, axis=-1) - at_target  # (M,)
    return mx.sum(weights * nats) / mx.maximum(mx.sum(weights), 1.0)


def as_arrays(masked: Masked, segment_ids: np.ndarray) -> tuple[mx.array, ...]:
    """The arguments of `masked_loss` after the model."""
    parts = (masked.inputs, segment_ids, masked.positions, masked.targets, masked.weights)
    return tuple(mx.array(part) for part in parts)
