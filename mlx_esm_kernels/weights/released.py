"""The released models by name: downloaded once, and kept in our own format in the cache folder."""

from __future__ import annotations

import os
import zipfile
import zlib
from pathlib import Path
from zipfile import BadZipFile

from ..data.download import download
from ..system.cache import cache_errors, cache_folder
from ..system.console import progress, say
from ..system.errors import DataError
from .fair_esm import read_fair_esm
from .native import read_native, save_weights
from .opened import OpenedWeights, WeightsError, build_model
from .torch_file import load_torch, require_torch

URL_VARIABLE = "MLX_ESM_KERNELS_MODELS_URL"
MODELS_URL = "https://dl.fbaipublicfiles.com/fair-esm"
_BLOCK = 1 << 20
ESM1_NAMES = (
    "esm1_t6_43M_UR50S",
    "esm1_t12_85M_UR50S",
    "esm1_t34_670M_UR50S",
    "esm1_t34_670M_UR50D",
    "esm1_t34_670M_UR100",
)
_ESM2 = (
    "esm2_t6_8M_UR50D",
    "esm2_t12_35M_UR50D",
    "esm2_t30_150M_UR50D",
    "esm2_t33_650M_UR50D",
    "esm2_t36_3B_UR50D",
    "esm2_t48_15B_UR50D",
)
_WITH_CONTACTS = (*ESM1_NAMES, "esm1b_t33_650M_UR50S", *_ESM2)
RELEASED = (*_WITH_CONTACTS, *(f"esm1v_t33_650M_UR90S_{number}" for number in range(1, 6)))


def read_released(name: str) -> OpenedWeights:
    """Open a released model, downloading it if it is not in the cache folder yet.

    What is downloaded is fair-esm's .pt file, and its contact regression where it has one. It is
    kept as our .safetensors, so that torch is needed this once.

    Args:
        name: one of `RELEASED`.

    Raises:
        WeightsError: it cannot be downloaded or opened, the cache folder cannot be written, or
            torch is needed and not installed.
    """
    try:
        folder = cache_folder() / "models"
        kept = folder / f"{name}.safetensors"
        if not kept.exists():
            with cache_errors():
                folder.mkdir(exist_ok=True)
            # Before gigabytes are downloaded, not after it. transformers has no ESM-1.
            copy = (
                ""
                if name in ESM1_NAMES
                else f"Or give facebook/{name}, the Hugging Face Hub's copy."
            )
            require_torch(
                f"{name} is released as a file of torch, which is needed to open it, once", copy
            )
            _convert(_download(name, folder), kept)
    except DataError as error:
        raise WeightsError(str(error)) from None
    return read_native(kept)


def _download(name: str, folder: Path) -> list[Path]:
    """The .pt file of a model and, if there is one, that of its contact regression."""
    base = (os.environ.get(URL_VARIABLE) or MODELS_URL).rstrip("/")
    files = [folder / f"{name}.pt"]
    urls = [f"{base}/models/{name}.pt"]
    if name in _WITH_CONTACTS:
        files.append(folder / f"{name}-contact-regression.pt")
        urls.append(f"{base}/regression/{name}-contact-regression.pt")
    for url, file in zip(urls, files, strict=True):
        download(url, file, damage=damage)
    say(
        f"   no checksum is published for {name}: its length was checked, and the CRC-32 of each "
        f"record in it"
    )
    return files


def _convert(files: list[Path], kept: Path) -> None:
    say(f"💾 converting {files[0].name} to {kept}")
    model = build_model(read_fair_esm(files[0], load_torch(files[0])))
    with cache_errors():
        save_weights(kept, model)
        for file in files:
            file.unlink()


def damage(path: Path, name: str) -> str:
    """What is wrong with a file of torch.save, from the CRC-32 of its records; "" if nothing is.

    Files from before torch 1.6 have no such sums, and are only opened.
    """
    try:
        if not zipfile.is_zipfile(path):
            load_torch(path)
            return ""
        with (
            zipfile.ZipFile(path) as records,
            progress(total=path.stat().st_size, desc=f"🔍 checking {name}", unit="B") as bar,
        ):
            for record in records.infolist():
                with records.open(record) as stream:
                    while block := stream.read(_BLOCK):  # raises where the sum is another
                        bar.update(len(block))
    except WeightsError as error:
        return str(error).rstrip(".")
    except (OSError, EOFError, ValueError, NotImplementedError, BadZipFile, zlib.error) as error:
        return f"{error}".rstrip(".")
    return ""
