"""Weights files: one module for each format, `load_model` for any of them, `save_weights`."""

from .checkpoint import WeightsError
from .loading import load_model
from .native import save_weights

__all__ = ["WeightsError", "load_model", "save_weights"]
