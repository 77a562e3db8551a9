"""ESM-1 protein language models on MLX, with kernels that MLX does not have."""

from .alphabet import ESM1B, Alphabet
from .model import ESM1, PRESETS, ESM1Config
from .ops import linear, masked_attention, positional_embedding
from .weights import load_model, save_weights

__all__ = [
    "ESM1",
    "ESM1B",
    "PRESETS",
    "Alphabet",
    "ESM1Config",
    "linear",
    "load_model",
    "masked_attention",
    "positional_embedding",
    "save_weights",
]
