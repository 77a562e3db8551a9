"""What a model says at masked positions alone, which training and measuring both ask for."""

from __future__ import annotations

import mlx.core as mx

from .esm1 import ESM1


def masked_logits(
    model: ESM1, inputs: mx.array, segment_ids: mx.array, positions: mx.array
) -> mx.array:
    """Logits at some positions of a batch, with the LM head run there and nowhere else.

    Args:
        model: has `encode` (B, L) -> (B, L, C) and `head` (M, C) -> (M, V).
        inputs, segment_ids: (B, L) integer.
        positions: (M,) integer, indices into the flattened (B * L,) batch.

    Returns:
        (M, V) float32.
    """
    hidden = model.encode(inputs, segment_ids)  # (B, L, C)
    rows = hidden.reshape(-1, hidden.shape[-1])[positions]  # (M, C)
    return model.head(rows).astype(mx.float32)
