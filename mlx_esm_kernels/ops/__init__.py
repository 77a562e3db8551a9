"""The compiled ops: attention, embedding, rotary positions, linear (int8 too), norm, AdamW."""

from .extension import MLX_VERSION  # isort: skip  (first: it loads what all others need)

from .._ext import (
    adamw,
    add_layer_norm,
    cpu_target,
    int8_linear,
    int8_linears,
    keep_freed_memory,
    layer_norm,
    linear,
    linears,
    num_threads,
)
from .angles import rotary_angles
from .calls import masked_attention, positional_embedding, rotary
from .forked import note_use

__all__ = [
    "MLX_VERSION",
    "adamw",
    "add_layer_norm",
    "cpu_target",
    "int8_linear",
    "int8_linears",
    "keep_freed_memory",
    "layer_norm",
    "linear",
    "linears",
    "masked_attention",
    "note_use",
    "num_threads",
    "positional_embedding",
    "rotary",
    "rotary_angles",
]
