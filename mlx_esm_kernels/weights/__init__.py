"""Weights files: one module for each format, `load_model` for any of them, `save_weights`."""

from .loading import load_model
from .native import save_weights
from .opened import WeightsError
from .released import RELEASED

__all__ = ["RELEASED", "WeightsError", "load_model", "save_weights"]
