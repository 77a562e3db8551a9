"""The float64 truth of the ops, by which the package's self-test judges as well."""

from mlx_esm_kernels.ops.truth import (
    Array,
    Gradients,
    int8_linear,
    layer_norm,
    layer_norm_gradients,
    linear,
    linear_gradients,
    masked_attention,
    masked_attention_gradients,
    normal_cdf,
    position_rows,
    positional_embedding,
    positional_embedding_gradients,
    rotary,
    rotary_gradients,
)

__all__ = [
    "Array",
    "Gradients",
    "int8_linear",
    "layer_norm",
    "layer_norm_gradients",
    "linear",
    "linear_gradients",
    "masked_attention",
    "masked_attention_gradients",
    "normal_cdf",
    "position_rows",
    "positional_embedding",
    "positional_embedding_gradients",
    "rotary",
    "rotary_gradients",
]
