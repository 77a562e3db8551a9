"""HEAD_DIR: all that is needed to predict again, but for the weights of the model beneath."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import mlx.core as mx
from mlx.utils import tree_flatten

from ..models.esm1 import ESM1
from ..models.fingerprint import fingerprint
from ..system.errors import UserError
from ..weights import load_model
from .head import Head, HeadSpec

WEIGHTS, CONFIG = "head.safetensors", "head.json"
FORMAT_VERSION = 1


class HeadError(UserError):
    """A folder of a head that cannot be used; the message names it and says why."""


@dataclass(frozen=True)
class Base:
    """The model beneath a head.

    Attributes:
        location: its file or folder, absolute, or the name of a released model.
        fingerprint: of `embedding_run.fingerprint`; with other weights the head means nothing.
        dtype: of its parameters, by name.
    """

    location: str
    fingerprint: str
    dtype: str

    @classmethod
    def of(cls, model: ESM1, location: str) -> Base:
        """That of a model which was loaded from `location`, before anything changes it."""
        path = Path(location)
        dtype = str(model.embed_tokens.weight.dtype).rsplit(".", 1)[-1]
        return cls(str(path.absolute()) if path.exists() else location, fingerprint(model), dtype)


@dataclass(frozen=True)
class SavedHead:
    """A head with what belongs to it.

    Attributes:
        head, spec: the head.
        base: the model beneath.
        sequence_col: the column that the sequences were in.
    """

    head: Head
    spec: HeadSpec
    base: Base
    sequence_col: str

    def open_model(self, weights: str | None = None) -> ESM1:
        """The model beneath.

        Args:
            weights: where it is now; None: where it was.

        Raises:
            WeightsError: it is not there, or cannot be used.
            HeadError: it is not the one that the head was fitted to.
        """
        location = weights or self.base.location
        model = load_model(location, self.base.dtype)
        if fingerprint(model) != self.base.fingerprint:
            raise HeadError(
                f"{location} is not what this head was fitted to, which was "
                f"{self.base.location}: its weights are others, and the head would mean nothing "
                f"on them. Give those weights with --weights-file."
            )
        return model


def save_head(folder: Path, saved: SavedHead) -> None:
    """Write head.safetensors and head.json into a folder."""
    mx.save_safetensors(str(folder / WEIGHTS), dict(tree_flatten(saved.head.parameters())))
    config = {
        "format_version": FORMAT_VERSION,
        **dataclasses.asdict(saved.spec),
        "sequence_col": saved.sequence_col,
        "base": dataclasses.asdict(saved.base),
    }
    text = json.dumps(config, indent=2, ensure_ascii=False)
    (folder / CONFIG).write_text(text + "\n", encoding="utf-8")


def load_head(folder: Path) -> SavedHead:
    """The head of a folder that `fit` wrote.

    Raises:
        HeadError: there is none, it is damaged, or it is of a newer release.
    """
    if not (folder / CONFIG).is_file():
        raise HeadError(
            f"{folder} is no folder of a head: it has no {CONFIG}. Give the folder that "
            f"fit wrote with -o."
        )
    try:
        config = json.loads((folder / CONFIG).read_text(encoding="utf-8"))
        version = config["format_version"]
    except (OSError, ValueError, TypeError, KeyError):
        raise HeadError(f"{folder / CONFIG} is damaged.") from None
    if version != FORMAT_VERSION:
        raise HeadError(
            f"{folder / CONFIG} has format version {version}, this release reads "
            f"{FORMAT_VERSION}: install a newer mlx-esm-kernels."
        )
    try:
        spec = _spec(config)
        base = Base(**{name: str(text) for name, text in config["base"].items()})
        head = Head(spec)
        head.load_weights(list(_arrays(folder / WEIGHTS).items()))
        return SavedHead(head, spec, base, str(config["sequence_col"]))
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        raise HeadError(f"{folder} is damaged: {error}.") from None


def _spec(config: Mapping[str, Any]) -> HeadSpec:
    fields = {field.name: config[field.name] for field in dataclasses.fields(HeadSpec)}
    tuples = {name: tuple(fields[name]) for name in ("classes", "layers", "changes")}
    return HeadSpec(**{**fields, **tuples})


def _arrays(path: Path) -> dict[str, mx.array]:
    try:
        arrays = mx.load(str(path), format="safetensors")
        mx.eval(arrays)
    except RuntimeError as error:
        raise ValueError(f"{path.name} cannot be read ({error})") from None
    assert isinstance(arrays, dict)
    return arrays
