"""`--objective` of `train`: what it means for the model."""

from __future__ import annotations

import warnings
from collections.abc import Collection
from dataclasses import replace

from ..models.config import ESM1Config
from ..training.config_file import ConfigWarning


def new_config(config: ESM1Config, objective: str, said: Collection[str]) -> ESM1Config:
    """The config of a new model for an objective.

    Token dropout is ESM-1b's remedy for masks that are always 15 %: it zeroes their rows and scales
    the others by 0.88 / (1 - share of masks). Where rates go up to 1 that scale goes up to half the
    length of a protein, so new models of other objectives do without, and a preset that is of
    another has it again for `mlm`.

    Args:
        config: as a preset or a configuration has it.
        objective: one of OBJECTIVES.
        said: the keys that a configuration gives; what it says of token_dropout stays.
    """
    if objective == config.objective:
        return config
    dropout = config.token_dropout if "token_dropout" in said else objective == "mlm"
    return replace(config, objective=objective, token_dropout=dropout)


def warn_of_token_dropout(config: ESM1Config, objective: str) -> None:
    """Say that a model keeps token dropout where the share of masks varies."""
    if objective != "mlm" and config.token_dropout:
        warnings.warn(
            f"The model keeps token dropout (token_dropout = true), which is made for masks that "
            f"are always 15 %; those of {objective} go up to all residues. New models for it have "
            "none.",
            ConfigWarning,
            stacklevel=2,
        )
