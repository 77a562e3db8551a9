"""What a file of weights is: its content decides, whatever it is called."""

from __future__ import annotations

import stat
import struct
import zipfile
from pathlib import Path
from typing import Literal

from .opened import WeightsError

Format = Literal["safetensors", "torch", "npz"]

# What torch.save wrote before torch 1.6 begins so: its magic number, pickled.
LEGACY_MAGIC = bytes.fromhex("80028a0a6cfc9c46f9206aa85019")
_BY_SUFFIX: dict[str, Format] = {
    ".npz": "npz",
    ".pt": "torch",
    ".pth": "torch",
    ".bin": "torch",
    ".ckpt": "torch",
}
_MAKE_OF_IT = "Give fair-esm's .pt, a folder of Hugging Face, or what train or convert wrote."
# What else is given as weights, by its first bytes: what it is, and what to do.
_OTHERS: tuple[tuple[bytes, str, str], ...] = (
    (
        b"version https://git-lfs",
        "a pointer of Git LFS, not the weights themselves",
        "Run git lfs pull where it was cloned, or download the file.",
    ),
    (b"<", "a page (HTML or XML), as a download that failed leaves", "Download it once more."),
    (b"{", "JSON text, not weights", _MAKE_OF_IT),
    (b">", "FASTA", "Proteins go to --data or to the command itself."),
    (b"GGUF", "GGUF, weights of llama.cpp", _MAKE_OF_IT),
    (b"\x89HDF", "HDF5, weights of Keras or TensorFlow", _MAKE_OF_IT),
    (b"\x93NUMPY", "one array of numpy", _MAKE_OF_IT),
    (b"\x1f\x8b", "compressed by gzip", "Unpack it first."),
    (b"BZh", "compressed by bzip2", "Unpack it first."),
    (b"\xfd7zXZ", "compressed by xz", "Unpack it first."),
    (b"\x28\xb5\x2f\xfd", "compressed by zstandard", "Unpack it first."),
    (b"Rar!", "a RAR archive", "Unpack it first."),
    (b"7z\xbc\xaf", "a 7-Zip archive", "Unpack it first."),
)
_TAR_AT = 257


def recognise(path: Path) -> Format:
    """The format of a file, from its content; of a damaged file only the name is left.

    Raises:
        WeightsError: it is missing, cannot be read, is empty, or is something else, which is named.
    """
    try:
        if not stat.S_ISREG(path.stat().st_mode):
            raise WeightsError(f"{path} is no file: it is a pipe or a device.")
        with path.open("rb") as file:
            start = file.read(512)
    except FileNotFoundError:
        raise WeightsError(f"There is no weights file {path}.") from None
    except OSError as error:
        raise WeightsError(f"{path} cannot be read: {error.strerror}.") from None
    if not start:
        raise WeightsError(f"{path} is empty; get it once more.")
    if start.startswith(LEGACY_MAGIC):
        return "torch"
    if _is_safetensors(path, start):
        return "safetensors"
    if start.startswith(b"PK"):
        return _of_zip(path)
    for magic, what, advice in _OTHERS:
        if start.startswith(magic):
            # Older words in front, which scripts may look for.
            raise WeightsError(
                f"{path} is no safetensors file or other weights: it is {what}. {advice}"
            )
    if start[_TAR_AT : _TAR_AT + 5] == b"ustar":
        raise WeightsError(f"{path} is a tar archive. Unpack it first.")
    return _BY_SUFFIX.get(path.suffix, "safetensors")


def _is_safetensors(path: Path, start: bytes) -> bool:
    """A length that the file can hold, then json."""
    if len(start) < 9 or start[8:9] != b"{":
        return False
    length: int = struct.unpack("<Q", start[:8])[0]
    return length <= path.stat().st_size - 8


def _of_zip(path: Path) -> Format:
    by_suffix = _BY_SUFFIX.get(path.suffix, "safetensors")
    try:
        with zipfile.ZipFile(path) as records:
            names = records.namelist()
    except Exception:  # a damaged zip can raise anything
        return by_suffix
    if any(name.endswith("data.pkl") for name in names):
        return "torch"
    if any(name.endswith(".npy") for name in names):
        return "npz"
    if "[Content_Types].xml" in names:
        raise WeightsError(f"{path} is an Office document, not weights.")
    if any(name.endswith((".safetensors", ".pt", ".bin", ".npz")) for name in names):
        raise WeightsError(f"{path} is a zip archive with weights in it. Unpack it first.")
    return by_suffix
