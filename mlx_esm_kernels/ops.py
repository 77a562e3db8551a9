"""The compiled ops: masked attention, positional embedding and linear.

Importing this module checks that the MLX at hand is the one the extension was built for, and makes
the libraries that the extension links to known to the loader.
"""

import ctypes
import importlib.metadata
import platform
from pathlib import Path

MLX_VERSION = "0.32.4"


def _check_mlx() -> None:
    """Raise ImportError unless the installed mlx is the one that the extension was compiled for."""
    found = importlib.metadata.version("mlx")
    if found != MLX_VERSION:
        raise ImportError(
            f"mlx_esm_kernels is compiled for mlx {MLX_VERSION}, but mlx {found} is installed; "
            f"run `pip install 'mlx=={MLX_VERSION}'`, or reinstall mlx_esm_kernels."
        )


def _load_blas() -> None:
    """Load OpenBLAS from its package: the extension finds a library that is loaded by its name."""
    if platform.system() != "Linux":
        return
    import scipy_openblas32

    library = Path(scipy_openblas32.get_lib_dir()) / scipy_openblas32.get_library(fullname=True)
    ctypes.CDLL(str(library))


_check_mlx()
# mlx.core comes before the extension, which links to the library that mlx.core loads.
import mlx.core  # noqa: E402, F401

_load_blas()

from mlx_esm_kernels._ext import (  # noqa: E402
    cpu_target,
    linear,
    masked_attention,
    num_threads,
    positional_embedding,
)

# A bad value of an environment variable is better known now than in the middle of a computation.
num_threads()
cpu_target()

__all__ = ["MLX_VERSION", "linear", "masked_attention", "positional_embedding"]
