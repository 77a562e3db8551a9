"""The emulator of Metal kernels, which lives in tools/: bench finds it here and nowhere else."""

from __future__ import annotations

import platform
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import click
from harness.measuring import installed

if TYPE_CHECKING:
    from metal_emulator import Emulator

TOOLS = str(Path(__file__).parents[2] / "tools")


def require_emulator() -> None:
    """Make it importable.

    Raises:
        click.ClickException: it does not run here, or its compiler is not installed.
    """
    if (platform.system(), platform.machine()) != ("Linux", "x86_64"):
        raise click.ClickException(
            "The kernels' work is counted in an emulator that runs on Linux x86-64 only, and this "
            f"is {platform.system()} {platform.machine()}; run it there."
        )
    if not installed("ziglang"):
        raise click.ClickException(
            "The kernels' work is counted in an emulator whose compiler, ziglang, is not "
            'installed; run `pip install -e ".[emulator]"`.'
        )
    if TOOLS not in sys.path:
        sys.path.append(TOOLS)


@contextmanager
def emulated(generation: int) -> Iterator[Emulator]:
    """Within, our ops run their kernels for a chip of this generation, and what they do is counted.

    Raises:
        click.ClickException: as `require_emulator`.
    """
    require_emulator()
    from metal_emulator import Emulator, emulating

    device = Emulator(orders=(0,))
    with emulating(device.execute, generation):
        yield device
