"""Models of which an adapter alone is trained."""

from __future__ import annotations

import os

import mlx.core as mx

from ..models.dtypes import DTYPES
from ..models.esm1 import ESM1
from ..models.fingerprint import fingerprint_of_base
from ..models.low_rank import LowRank, add_low_rank, base_parameters
from ..system.errors import UserError
from ..weights import load_model
from ..weights.adapter import BaseWeights
from ..weights.loading import lasting_name
from .recipe import Adapter


def adapt(
    model: ESM1, weights_file: str | os.PathLike[str], low_rank: LowRank, precision: str
) -> Adapter:
    """Put low-rank products into a model, in place; all else is frozen.

    Args:
        model: of `load_model`, in float32.
        weights_file: where it is from.
        low_rank: which layers, and what kind.
        precision: the name of a dtype, in which the frozen weights are kept from here on.
    """
    base = BaseWeights(lasting_name(weights_file), fingerprint_of_base(model))
    adapter = Adapter(low_rank, base)
    _add(model, low_rank, precision)
    return adapter


def adapted_again(adapter: Adapter, precision: str) -> ESM1:
    """The model that `adapt` made of its weights, with new products.

    Raises:
        UserError: the weights are not what they were.
    """
    base = adapter.base
    model = load_model(base.name, dtype=mx.float32)
    if fingerprint_of_base(model) != base.fingerprint:
        raise UserError(
            f"{base.name} has other weights than those that the adapter was begun with, so it "
            "cannot be gone on with. Put those back."
        )
    _add(model, adapter.low_rank, precision)
    return model


def _add(model: ESM1, low_rank: LowRank, precision: str) -> None:
    frozen = [(name, x.astype(DTYPES[precision])) for name, x in base_parameters(model).items()]
    model.load_weights(frozen)
    add_low_rank(model, low_rank)
    mx.eval(model.parameters())
