"""A map of which residues of a protein touch."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import numpy.typing as npt

from .figure import new_figure, save_png


def draw_contacts(path: Path, contacts: npt.NDArray[np.float32], *, title: str) -> None:
    """A contact map as a PNG.

    Args:
        path: the .png file.
        contacts: (L, L), probabilities.
        title: a line above.
    """
    figure = new_figure(5.5, 5.0)
    axes = figure.add_subplot()
    end = len(contacts) + 0.5
    picture = axes.imshow(
        contacts, cmap="Blues", vmin=0, vmax=1, extent=(0.5, end, end, 0.5), interpolation="nearest"
    )
    axes.set_xlabel("residue")
    axes.set_ylabel("residue")
    axes.set_title(title, fontsize=9, parse_math=False)
    figure.colorbar(picture, ax=axes, label="probability of a contact", fraction=0.046)
    save_png(figure, path)
