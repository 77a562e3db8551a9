"""Models of the Hugging Face Hub by their names, `owner/name` or `owner/name@revision`.

huggingface_hub downloads them, into the cache that it shares with transformers and mlx-lm, and
obeys its own variables: HF_HOME, HF_TOKEN, HF_ENDPOINT, HF_HUB_OFFLINE.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from ..system.bars import Bar
from ..system.console import bar_class, bar_options, say
from .hugging_face import read_hugging_face, read_settings
from .opened import OpenedWeights, WeightsError
from .torch_file import require_torch

_PART = r"[A-Za-z0-9][\w.-]{0,95}"
_NAME = re.compile(rf"{_PART}/{_PART}(@[\w./-]+)?")
# What is called so is a file.
_SUFFIXES = (
    *(".pt", ".pth", ".bin", ".ckpt", ".safetensors", ".npz", ".npy", ".h5", ".gguf"),
    *(".zip", ".gz", ".tar", ".json", ".toml", ".txt", ".csv", ".fasta", ".fa", ".faa"),
)
# A model is known by the small ones. Of the weights, .bin is taken where nothing else is.
_SMALL = ["config.json", "vocab.txt", "adapter_config.json", "*.index.json"]
_SAFETENSORS = ["model.safetensors", "model-*.safetensors"]
_OF_NETWORK = "Downloading bytes"
_TORCH = ["pytorch_model.bin", "pytorch_model-*.bin"]


def is_hub_name(name: str) -> bool:
    """Whether what is no path here may be a model of the Hub: not what is called like a file."""
    return bool(_NAME.fullmatch(name)) and not name.lower().endswith(_SUFFIXES)


def read_hub(name: str) -> OpenedWeights:
    """Open a model of the Hub, downloading what is not in the Hub's cache yet.

    Args:
        name: `owner/name`, with `@` and a branch, tag or commit behind it for another revision
            than the newest.

    Raises:
        WeightsError: it cannot be downloaded, or is no model of the family.
    """
    folder = _snapshot(name, _SMALL)
    called = f"{name} on the Hugging Face Hub"
    if not any((folder / known).exists() for known in ("config.json", "adapter_config.json")):
        raise WeightsError(f"{called} has no config.json, so it is no model of transformers.")
    read_settings(folder, called)  # which refuses before gigabytes are downloaded
    if not any(file.name.startswith(("model", "pytorch_model")) for file in folder.iterdir()):
        say(f"📥 downloading {called}", err=True)
    same = f"{name.partition('@')[0]}@{folder.name}"  # the commit, whatever comes meanwhile
    folder = _snapshot(same, _SMALL + _SAFETENSORS)
    if not any(folder.glob("model*.safetensors")):
        require_torch(f"{called} has no .safetensors; torch is needed to open what it may have")
        folder = _snapshot(same, _SMALL + _TORCH)
        if not any(folder.glob("pytorch_model*.bin")):
            raise WeightsError(
                f"{called} holds no weights: expected model.safetensors or pytorch_model.bin."
            )
    return read_hugging_face(folder)


def _snapshot(name: str, patterns: list[str]) -> Path:
    """The folder of a revision in the Hub's cache, with the files that match."""
    # Here, as it takes a while and is seldom needed.
    from huggingface_hub import snapshot_download

    repository, _, revision = name.partition("@")
    bars: list[Bar] = []
    try:
        return Path(
            snapshot_download(
                repository,
                revision=revision or None,
                allow_patterns=patterns,
                tqdm_class=_bar_of_bytes(bars),  # type: ignore[arg-type]  # asks for tqdm.auto's
            )
        )
    # Those of its http client, of which it has changed, are neither its own nor of the system.
    except Exception as error:
        raise WeightsError(_why_not(name, error)) from None
    finally:
        for bar in bars:
            bar.close()  # the library leaves them open


def _bar_of_bytes(made: list[Bar]) -> type[Bar]:
    """The library's bar of the bytes on the disk, as ours; not that of files, which are a few, nor
    that of the bytes of the network, which are about as many.

    Args:
        made: gets each of them.
    """

    class OfBytes(bar_class()):  # type: ignore[misc]
        def __init__(self, *arguments: Any, **options: Any) -> None:
            shown = {**options, "desc": "📥 downloading", "bar_format": None, **bar_options()}
            if options.get("unit") != "B" or options.get("desc") == _OF_NETWORK:
                shown["disable"] = True
            super().__init__(*arguments, **shown)
            made.append(self)

        def set_description(self, *_: Any, **__: Any) -> None:
            """It is named already."""

        set_description_str = set_postfix_str = set_description  # and has the rate

    return OfBytes


def _why_not(name: str, error: Exception) -> str:
    """What went wrong with a download, and what to do."""
    from huggingface_hub import constants, errors

    repository, _, revision = name.partition("@")
    start = f"{name} cannot be downloaded from the Hugging Face Hub"
    if isinstance(error, errors.GatedRepoError):
        return (
            f"{start}: it is for those alone whom its owners let in. Ask for it at "
            f"{constants.ENDPOINT}/{repository}, then run hf auth login, or set HF_TOKEN."
        )
    if isinstance(error, errors.RepositoryNotFoundError):
        return (
            f"There is no file or folder {name} here, and {start}: there is no model of that name, "
            f"or it is private and needs hf auth login."
        )
    if isinstance(error, errors.RevisionNotFoundError):
        return f"{start}: it has no revision {revision!r}; leave @{revision} out for the newest."
    if constants.HF_HUB_OFFLINE:
        return (
            f"{name} is not in the Hugging Face Hub's cache ({constants.HF_HUB_CACHE}), or not all "
            f"of it, and HF_HUB_OFFLINE is set: unset it, and it is downloaded."
        )
    cause = _innermost(error)
    status = getattr(getattr(cause, "response", None), "status_code", None)
    if status is not None:
        return f"{start}: {constants.ENDPOINT} answers {status}; try again later."
    if isinstance(cause, OSError) and cause.filename:
        return f"{start}: {cause.strerror} ({cause.filename}); HF_HOME says where it is kept."
    reason = f"{cause}".strip().split("\n")[0].rstrip(".") or type(cause).__name__
    return f"{start} ({constants.ENDPOINT}): {reason}. Check the connection and try again."


def _innermost(error: BaseException) -> BaseException:
    while error.__cause__ is not None:
        error = error.__cause__
    return error
