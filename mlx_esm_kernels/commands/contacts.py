"""`python -m mlx_esm_kernels.contacts`: contact probabilities and maps of proteins."""

from __future__ import annotations

import textwrap
import zipfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, cast

import click
import numpy as np
import numpy.typing as npt

from ..data.proteins import load_proteins
from ..inference.embedding import contact_map
from ..inference.requirements import Long, require_lengths
from ..models.contact_head import require_contact_head
from ..pictures.contacts import draw_contacts
from ..system.console import progress, say
from ..system.whole_file import OutputError, output_errors, require_writable, whole_file
from .errors import errors_as_sentences
from .flags import (
    adapter_flag,
    as_protein_flag,
    device_flag,
    dtype_flag,
    long_flag,
    open_model,
    weights_flag,
)

_MOST_NAME_BYTES = 1 << 26
LAYOUT = """\b
The npz file has, for N proteins in the order of the FASTA:
  names           N strings, the headers; may repeat. Where one of them is
                  so long that N of its size are over 64 MB: UTF-8 text,
                  one header a line (uint8)
  contacts_1 ...  (L, L) float32 each, the probability that two residues
  contacts_N      touch (Cb atoms within 8 A)
The maps are drawn beside it, NAME-1.png to NAME-N.png.
"""


@click.command("contacts", context_settings={"show_default": True}, epilog=LAYOUT)
@click.argument("fasta", nargs=-1, required=True)
@weights_flag
@adapter_flag
@click.option(
    "-o",
    "--output",
    required=True,
    type=click.Path(path_type=Path),
    help="A file NAME.npz, or a folder, made if need be, in which that is contacts.npz.",
)
@click.option("--no-png", is_flag=True, help="Do not draw the maps.")
@long_flag(
    " that overlap by a quarter or more; a pair has the mean of those that see both residues, and "
    "0 where none does."
)
@dtype_flag
@as_protein_flag
@device_flag
@errors_as_sentences()
def command(
    *,
    fasta: tuple[str, ...],
    weights_file: str,
    output: Path,
    no_png: bool,
    long: str,
    dtype: str | None,
    adapter: Path | None,
    as_protein: bool,
) -> None:
    """Predict which residues of a protein touch, for every protein of FASTA files.

    They are plain or compressed; - is standard input.
    """
    target, picture_of = _destination(output)
    require_writable(target)
    say("📥 loading weights and proteins")
    model = open_model(weights_file, dtype, adapter)
    require_contact_head(model.config)
    proteins = load_proteins(fasta, model.alphabet, as_protein=as_protein)
    if long == "error":
        require_lengths(model, proteins, "give a part of it, or see --long")
    pictures = [] if no_png else [picture_of(number) for number in range(1, len(proteins) + 1)]
    for picture in pictures:
        require_writable(picture)
    with (
        whole_file(target) as half_done,
        zipfile.ZipFile(half_done, "w", zipfile.ZIP_DEFLATED, compresslevel=1) as file,
        progress(total=len(proteins), desc="🤝 predicting contacts", unit="protein") as bar,
    ):
        _add(file, "names", _names(proteins.names))
        for number, ids in enumerate(proteins, start=1):
            contacts = np.array(contact_map(model, ids, cast(Long, long)))
            _add(file, f"contacts_{number}", contacts)
            if pictures:
                name = proteins.names[number - 1]
                draw_contacts(pictures[number - 1], contacts, title=textwrap.shorten(name, 70))
            bar.update()
    count = "1 protein" if len(proteins) == 1 else f"{len(proteins):,} proteins"
    drawn = f", maps drawn to {pictures[0]}" if pictures else ""
    drawn += " ..." if len(pictures) > 1 else ""
    say(f"💾 contacts of {count} saved to {target}{drawn}")


def _destination(output: Path) -> tuple[Path, Callable[[int], Path]]:
    """The npz file, and the path of the PNG of protein N."""
    if output.suffix == ".npz":
        return output, lambda number: output.with_name(f"{output.stem}-{number}.png")
    if output.suffix and not output.is_dir():
        raise OutputError(f"{output} must be a folder, or a file that ends in .npz.")
    with output_errors(output):
        output.mkdir(parents=True, exist_ok=True)
    return output / "contacts.npz", lambda number: output / f"contacts-{number}.png"


def _names(names: Sequence[str]) -> npt.NDArray[Any]:
    """The headers; numpy gives each of them the room of the longest."""
    listed = list(names)
    if 4 * len(listed) * max(map(len, listed)) <= _MOST_NAME_BYTES:
        return np.array(listed)
    return np.frombuffer("".join(f"{name}\n" for name in listed).encode(), np.uint8)


def _add(file: zipfile.ZipFile, name: str, array: npt.NDArray[Any]) -> None:
    """Add an array as `np.savez_compressed` would, though one at a time."""
    with file.open(f"{name}.npy", "w", force_zip64=True) as member:
        np.lib.format.write_array(member, array, allow_pickle=False)
