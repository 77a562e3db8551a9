"""HEAD_DIR: all that is needed to predict again, but for the weights of the model beneath."""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import mlx.core as mx
from mlx.utils import tree_flatten

from ..models.esm1 import ESM1
from ..models.fingerprint import fingerprint, fingerprint_of_base
from ..models.low_rank import LowRank
from ..system.errors import UserError
from ..weights import load_model
from ..weights.adapter import ARRAYS_FILE, BaseWeights, load_adapter, save_adapter
from ..weights.loading import lasting_name
from .head import Head, HeadSpec

WEIGHTS, CONFIG, ADAPTERS = "head.safetensors", "head.json", "adapters"
# A head with an adapter has another version than one without: who knows no adapters, and would
# predict without it, must not read it.
FORMAT_VERSION, FORMAT_VERSION_ADAPTED = 1, 2


class HeadError(UserError):
    """A folder of a head that cannot be used; the message names it and says why."""


@dataclass(frozen=True)
class Base:
    """The model beneath a head.

    Attributes:
        location: its file or folder, absolute, or the name of a released model.
        fingerprint: of `models.fingerprint`; with other weights the head means nothing.
        dtype: of its parameters, by name.
    """

    location: str
    fingerprint: str
    dtype: str

    @classmethod
    def of(cls, model: ESM1, location: str) -> Base:
        """That of a model which was loaded from `location`, before anything changes it."""
        dtype = str(model.embed_tokens.weight.dtype).rsplit(".", 1)[-1]
        return cls(lasting_name(location), fingerprint(model), dtype)


@dataclass(frozen=True)
class SavedAdapter:
    """The adapter that a head was trained with.

    Attributes:
        folder: that of `save_adapter`.
        digest: of its arrays, so that another adapter of the same base is not taken for it.
    """

    folder: Path
    digest: str

    def put_into(self, model: ESM1) -> None:
        """Put it beside the layers of its base, in place.

        Raises:
            WeightsError: see `load_adapter`.
            HeadError: it is not the one that the head was trained with.
        """
        load_adapter(self.folder, model)
        if _digest(self.folder) != self.digest:
            raise HeadError(
                f"{self.folder} is another adapter than the one that this head was trained with; "
                f"put back what fit wrote there."
            )


@dataclass(frozen=True)
class SavedHead:
    """A head with what belongs to it.

    Attributes:
        head, spec: the head.
        base: the model beneath.
        sequence_col: the column that the sequences were in.
        adapter: what was trained in the model together with the head; None: nothing was.
    """

    head: Head
    spec: HeadSpec
    base: Base
    sequence_col: str
    adapter: SavedAdapter | None = None

    def open_model(self, weights: str | None = None) -> ESM1:
        """The model beneath, with its adapter if there is one.

        Args:
            weights: where it is now; None: where it was.

        Raises:
            WeightsError: it or the adapter is not there, or cannot be used.
            HeadError: it or the adapter is not the one that the head was fitted to.
        """
        location = weights or self.base.location
        model = load_model(location, self.base.dtype)
        if fingerprint(model) != self.base.fingerprint:
            raise HeadError(
                f"{location} is not what this head was fitted to, which was "
                f"{self.base.location}: its weights are others, and the head would mean nothing "
                f"on them. Give those weights with --weights-file."
            )
        if self.adapter is not None:
            self.adapter.put_into(model)
        return model


def save_head(folder: Path, saved: SavedHead, adapted: tuple[ESM1, LowRank] | None = None) -> None:
    """Write head.safetensors and head.json into a folder.

    Args:
        folder: where to write.
        saved: the head.
        adapted: the model that was trained with it, and which products it has; they go to the
            folder adapters within. None: the model is as it was.

    Raises:
        OutputError: the adapter cannot be written.
    """
    adapter = None
    if adapted is not None:
        base = BaseWeights(saved.base.location, fingerprint_of_base(adapted[0]))
        save_adapter(folder / ADAPTERS, *adapted, base)
        adapter = {"folder": ADAPTERS, "digest": _digest(folder / ADAPTERS)}
    mx.save_safetensors(str(folder / WEIGHTS), dict(tree_flatten(saved.head.parameters())))
    config = {
        "format_version": FORMAT_VERSION if adapter is None else FORMAT_VERSION_ADAPTED,
        **dataclasses.asdict(saved.spec),
        "sequence_col": saved.sequence_col,
        "base": dataclasses.asdict(saved.base),
        **({} if adapter is None else {"adapter": adapter}),
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
    if version not in (FORMAT_VERSION, FORMAT_VERSION_ADAPTED):
        raise HeadError(
            f"{folder / CONFIG} has format version {version}, this release reads "
            f"{FORMAT_VERSION} and {FORMAT_VERSION_ADAPTED}: install a newer mlx-esm-kernels."
        )
    try:
        spec = _spec(config)
        base = Base(**{name: str(text) for name, text in config["base"].items()})
        head = Head(spec)
        head.load_weights(list(_arrays(folder / WEIGHTS).items()))
        adapter = _adapter(folder, config) if version == FORMAT_VERSION_ADAPTED else None
        return SavedHead(head, spec, base, str(config["sequence_col"]), adapter)
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        raise HeadError(f"{folder} is damaged: {error}.") from None


def _adapter(folder: Path, config: Mapping[str, Any]) -> SavedAdapter:
    adapter = config["adapter"]
    path = folder / str(adapter["folder"])
    if not path.is_dir():
        raise HeadError(
            f"{folder} is not whole: the adapter that its head was trained with, the folder "
            f"{path.name}, is not there. Put it back; without it the head means nothing."
        )
    return SavedAdapter(path, str(adapter["digest"]))


def _digest(folder: Path) -> str:
    """Of the arrays of an adapter."""
    return hashlib.blake2b((folder / ARRAYS_FILE).read_bytes(), digest_size=16).hexdigest()


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
