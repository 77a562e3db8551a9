"""Protein language models of the ESM family on MLX, with kernels that MLX does not have."""

import warnings
from typing import Any

from .data.alphabet import ESM1_ALPHABET, ESM1B, Alphabet
from .data.fasta import read_fasta
from .inference.couplings import coupling_map
from .inference.embedding import Embedding, embed
from .inference.evaluation import Evaluation, evaluate
from .inference.generation import generate
from .inference.sampling import Sampling
from .inference.structure_view import StructureView, view
from .inference.variants import (
    every_substitution,
    pseudo_perplexity,
    residue_confidence,
    score_variants,
    substitution_grid,
)
from .models.esm1 import ESM1, PRESETS, ESM1Config, predict_contact_rows, predict_contacts
from .ops import linear, masked_attention, positional_embedding, rotary, rotary_angles
from .pictures.confidence import confidence_picture
from .pictures.contacts import contact_picture
from .pictures.substitutions import substitution_picture
from .weights import load_model, save_hugging_face, save_weights

__all__ = [
    "ESM1",
    "ESM1B",
    "ESM1_ALPHABET",
    "PRESETS",
    "Alphabet",
    "ESM1Config",
    "Embedding",
    "Evaluation",
    "Sampling",
    "StructureView",
    "confidence_picture",
    "contact_picture",
    "coupling_map",
    "embed",
    "evaluate",
    "every_substitution",
    "generate",
    "linear",
    "load_model",
    "masked_attention",
    "positional_embedding",
    "predict_contact_rows",
    "predict_contacts",
    "pseudo_perplexity",
    "read_fasta",
    "residue_confidence",
    "rotary",
    "rotary_angles",
    "save_hugging_face",
    "save_weights",
    "score_variants",
    "substitution_grid",
    "substitution_picture",
    "view",
]


def __getattr__(name: str) -> Any:
    # A public name of 0.1; the first mlx-esm is a format of weights like others now.
    if name == "FIRST_MLX_ESM":
        from .weights.first_mlx_esm import FIRST_MLX_ESM

        warnings.warn(
            "mlx_esm_kernels.FIRST_MLX_ESM goes with the next release; it is "
            "mlx_esm_kernels.weights.first_mlx_esm.FIRST_MLX_ESM.",
            DeprecationWarning,
            stacklevel=2,
        )
        return FIRST_MLX_ESM
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
