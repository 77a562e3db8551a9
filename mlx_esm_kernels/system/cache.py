"""The folder in which downloads, encoded proteins and facts about the GPU are kept."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path

from platformdirs import user_cache_path

from .errors import DataError

CACHE_VARIABLE = "MLX_ESM_KERNELS_CACHE"


def cache_folder() -> Path:
    """Where downloads and encoded proteins are kept; made if it is not there.

    It is the user's cache folder of the system, or MLX_ESM_KERNELS_CACHE where that is set.

    Raises:
        DataError: it cannot be made.
    """
    folder = Path(
        os.environ.get(CACHE_VARIABLE) or user_cache_path("mlx-esm-kernels", appauthor=False)
    )
    folder = folder.expanduser()
    with cache_errors():
        folder.mkdir(parents=True, exist_ok=True)
    return folder


@contextlib.contextmanager
def cache_errors() -> Iterator[None]:
    """Turn trouble with the cache folder into a sentence."""
    try:
        yield
    except OSError as error:
        where = f" ({error.filename})" if error.filename else ""
        reason = error.strerror or str(error).rstrip(".")
        raise DataError(
            f"The cache folder cannot be used: {reason}{where}. Set "
            f"{CACHE_VARIABLE} to a folder with space that may be written."
        ) from None
