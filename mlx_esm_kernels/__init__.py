"""ESM-1 protein language models on MLX, with kernels that MLX does not have."""

from .alphabet import ESM1_ALPHABET, ESM1B, FIRST_MLX_ESM, Alphabet
from .checkpoints import load_model, save_weights
from .embedding import Embedding, embed
from .model import ESM1, PRESETS, ESM1Config, predict_contacts
from .ops import linear, masked_attention, positional_embedding
from .variants import pseudo_perplexity, score_variants

__all__ = [
    "ESM1",
    "ESM1B",
    "ESM1_ALPHABET",
    "FIRST_MLX_ESM",
    "PRESETS",
    "Alphabet",
    "ESM1Config",
    "Embedding",
    "embed",
    "linear",
    "load_model",
    "masked_attention",
    "positional_embedding",
    "predict_contacts",
    "pseudo_perplexity",
    "save_weights",
    "score_variants",
]
