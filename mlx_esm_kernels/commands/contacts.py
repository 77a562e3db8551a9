"""`python -m mlx_esm_kernels.contacts`: contact probabilities and maps of proteins."""

from __future__ import annotations

import textwrap
import zipfile
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, cast

import click
import mlx.core as mx
import numpy as np
import numpy.typing as npt

from ..data.proteins import load_proteins
from ..inference.contacts import contact_rows
from ..inference.requirements import Long, require_lengths
from ..models.contact_head import require_contact_head
from ..pictures.contacts import ContactPicture
from ..system.console import progress, say
from ..system.whole_file import (
    OutputError,
    output_errors,
    require_no_input,
    require_writable,
    whole_file,
)
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
from .grouped_command import GroupedCommand

_MOST_NAME_BYTES = 1 << 26
LAYOUT = """\b
The npz file has, for N proteins in the order of the FASTA:
  names           N strings, the headers; may repeat. Where one of them is
                  so long that N of its size are over 64 MB: UTF-8 text,
                  one header a line (uint8)
  contacts_1 ...  (L, L) float32 each, the probability that two residues
  contacts_N      touch (Cb atoms within 8 A)
Before compression that is 4 L^2 bytes a protein: 4 MB for 1,000
residues, 4.7 GB for titin's 34,350. They are written some rows at a
time, and are never all in memory.
The maps are drawn beside it, NAME-1.png to NAME-N.png.
"""


GROUPS = {
    "What to read": ["weights-file", "adapter", "as-protein"],
    "What to write": ["output", "no-png"],
    "How": ["long", "dtype", "device"],
}


@click.command(
    "contacts",
    cls=GroupedCommand,
    groups=GROUPS,
    context_settings={"show_default": True},
    epilog=LAYOUT,
)
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

    \b
    Examples:
      mlx-esm contacts --weights-file esm2_t6_8M_UR50D p.fasta -o maps.npz
    """
    target, picture_of = _destination(output)
    require_writable(target)
    require_no_input(target, *fasta, weights_file, adapter)
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
        progress(
            total=int(proteins.lengths.sum()), desc="🤝 predicting contacts", unit="residue"
        ) as bar,
    ):
        names = _names(proteins.names)
        _add(file, "names", names.dtype, names.shape, [names])
        for number, ids in enumerate(proteins, start=1):
            drawn = ContactPicture(len(ids)) if pictures else None
            rows = _seen(contact_rows(model, ids, cast(Long, long), bar.update), drawn)
            _add(file, f"contacts_{number}", np.dtype(np.float32), (len(ids), len(ids)), rows)
            if drawn is not None:
                title = textwrap.shorten(proteins.names[number - 1], 70)
                drawn.draw(pictures[number - 1], title=title)
    count = "1 protein" if len(proteins) == 1 else f"{len(proteins):,} proteins"
    where = f", maps drawn to {pictures[0]}" if pictures else ""
    where += " ..." if len(pictures) > 1 else ""
    say(f"💾 contacts of {count} saved to {target}{where}")


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


def _seen(
    parts: Iterable[mx.array], picture: ContactPicture | None
) -> Iterator[npt.NDArray[np.float32]]:
    """The rows of a map as numpy has them, once the picture has them too."""
    for part in parts:
        rows = np.array(part)
        if picture is not None:
            picture.add(rows)
        yield rows


def _add(
    file: zipfile.ZipFile,
    name: str,
    dtype: np.dtype[Any],
    shape: tuple[int, ...],
    parts: Iterable[npt.NDArray[Any]],
) -> None:
    """Add an array as `np.savez_compressed` would, though one at a time, and that in parts."""
    about = {"descr": np.lib.format.dtype_to_descr(dtype), "fortran_order": False, "shape": shape}
    with file.open(f"{name}.npy", "w", force_zip64=True) as member:
        np.lib.format.write_array_header_1_0(member, about)
        for part in parts:
            member.write(np.ascontiguousarray(part).data)
