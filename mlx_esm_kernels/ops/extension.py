"""The compiled ops, `_ext`, once all that they link to is there.

Importing this module checks that the MLX at hand is the one the extension was built for, and makes
the libraries that the extension links to known to the loader.
"""

from __future__ import annotations

import ctypes
import importlib.metadata
import platform
from importlib.util import find_spec
from pathlib import Path

MLX_VERSION = "0.32.4"
_PACKAGE = Path(__file__).parents[1]


def _check_mlx() -> None:
    """Raise ImportError unless the installed mlx is the one that the extension was compiled for."""
    found = importlib.metadata.version("mlx")
    if found != MLX_VERSION:
        raise ImportError(
            f"mlx_esm_kernels is compiled for mlx {MLX_VERSION}, but mlx {found} is installed; "
            f"run `pip install 'mlx=={MLX_VERSION}'`, or reinstall mlx_esm_kernels."
        )


def _check_built() -> None:
    """Raise ImportError where this is a source tree in which nothing was compiled."""
    if find_spec("mlx_esm_kernels._ext") is None:
        raise ImportError(
            f"{_PACKAGE} has no compiled ops (_ext): it is a source tree that was not built in "
            f"place. Run `pip install -e .` in {_PACKAGE.parent}, or start Python from another "
            f"folder to use the package that is installed."
        )


def _load_blas() -> None:
    """Load OpenBLAS from its package: the extension finds a library that is loaded by its name."""
    if platform.system() != "Linux":
        return
    import scipy_openblas32

    library = Path(scipy_openblas32.get_lib_dir()) / scipy_openblas32.get_library(fullname=True)
    ctypes.CDLL(str(library))


_check_mlx()
_check_built()
# mlx.core comes before the extension, which links to the library that mlx.core loads.
import mlx.core  # noqa: E402, F401

_load_blas()

from mlx_esm_kernels import _ext  # noqa: E402

# A bad value of an environment variable is better known now than in the middle of a computation.
_ext.num_threads()
_ext.cpu_target()

__all__ = ["MLX_VERSION"]
