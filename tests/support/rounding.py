"""The units of rounding of the ops' results, in which errors are counted."""

from mlx_esm_kernels.ops.rounding import (
    EPS,
    layer_norm,
    linear,
    masked_attention,
    positional_embedding,
    rotary,
)

__all__ = ["EPS", "layer_norm", "linear", "masked_attention", "positional_embedding", "rotary"]
