"""Weights files and adapters: a module for each format, `load_model`, `save_weights`."""

from .hugging_face_writing import save_hugging_face
from .loading import load_fused, load_model
from .native import save_weights
from .opened import WeightsError
from .released import RELEASED

__all__ = [
    "RELEASED",
    "WeightsError",
    "load_fused",
    "load_model",
    "save_hugging_face",
    "save_weights",
]
