"""`python -m mlx_esm_kernels.embed`: embeddings of the proteins of FASTA files, in one file."""

from __future__ import annotations

import hashlib
import json
import time
from pathlib import Path
from typing import Any, cast

import click
import mlx.core as mx
import numpy as np
import numpy.typing as npt
from mlx.utils import tree_flatten

from ..data.proteins import Proteins, load_proteins
from ..inference.embedding import INCLUDES, LONGS, Embedder, Embedding, Long, require_lengths
from ..inference.embedding_file import SUFFIXES, Column, EmbeddingFile, require_embedding_output
from ..models.esm1 import ESM1
from ..system.console import duration, progress, say
from ..system.interrupt import StopOnSignal
from .flags import dtype_flag, open_model, plain_errors, weights_flag
from .spread_command import SpreadCommand

LAYOUT = """\b
The arrays of OUT, for N proteins with R residues together, a model of
width C, and each layer asked for (mean.33 is that of layer 33):
  names            UTF-8 text, one header a line, in the order of the FASTA
                   (.h5: N strings); headers may be the same
  offsets          (N + 1) int64, residues of protein i are at [i] to [i + 1]
  mean.LAYER       (N, C), mean over the residues, without cls and eos
  bos.LAYER        (N, C), the vector at cls
  per-residue.LAYER  (R, C), protein after protein: cut it at offsets
  contacts         float32, one square per protein, row after row
  contact_offsets  (N + 1) int64, square i is at [i] to [i + 1]

\b
  arrays = mx.load("out.safetensors")  # or numpy.load, or h5py.File
  names = bytes(arrays["names"]).decode().split("\\n")[:-1]
  first, end = arrays["offsets"][i : i + 2].tolist()
  protein = arrays["per-residue.33"][first:end]

.npz and .h5 have no bfloat16: there it becomes float32.

An interrupted run leaves OUT.partial; the same command goes on with it and
ends with the same file.
"""


@click.command("embed", cls=SpreadCommand, context_settings={"show_default": True}, epilog=LAYOUT)
@click.argument("fasta", nargs=-1, required=True)
@weights_flag
@click.option(
    "-o",
    "--output",
    required=True,
    type=click.Path(path_type=Path),
    help=f"File to write; its suffix says which kind: {', '.join(SUFFIXES)} (needs h5py).",
)
@click.option(
    "--layers",
    type=int,
    multiple=True,
    default=(-1,),
    metavar="N...",
    help="0 is the embedding, N the output of layer N, -1 the last layer's.",
)
@click.option(
    "--include",
    type=click.Choice(INCLUDES),
    multiple=True,
    default=("mean",),
    help="What to write; several may follow.",
)
@click.option(
    "--long",
    type=click.Choice(LONGS),
    default="error",
    help="Proteins longer than the position table. window: seen in windows that overlap by a "
    "quarter or more, each residue taken from the window in which it is farther from an end; the "
    "mean is over the residues, bos is the mean of the windows' bos.",
)
@dtype_flag
@click.option("--overwrite", is_flag=True, help="Begin anew, whatever is at OUT or OUT.partial.")
def command(**options: Any) -> None:
    """Embed the proteins of FASTA files (- is standard input).

    They go through the model packed side by side; a protein's embedding does not depend on the
    others.
    """
    with plain_errors():
        stopped_by = _embed(**options)
    if stopped_by is not None:
        click.get_current_context().exit(128 + stopped_by)  # as shells count what a signal ended


def _embed(
    *,
    fasta: tuple[str, ...],
    weights_file: str,
    output: Path,
    layers: tuple[int, ...],
    include: tuple[str, ...],
    long: str,
    dtype: str | None,
    overwrite: bool,
) -> int | None:
    """The whole of the command; the number of the signal that cut it short, or None."""
    require_embedding_output(output, overwrite)
    say("📥 loading weights and proteins")
    model = open_model(weights_file, dtype)
    embedder = Embedder(model, layers=layers, include=include, long=cast(Long, long))
    proteins = load_proteins(fasta, model.alphabet)
    require_lengths(embedder, proteins)
    names = "".join(f"{name}\n" for name in proteins.names).encode()
    columns = plan_columns(embedder, proteins, len(names))
    about = _about(embedder, proteins, names, weights_file)
    with (
        StopOnSignal() as stop,
        EmbeddingFile(output, columns, about, overwrite=overwrite) as file,
    ):
        if not file.done:
            _write_tables(file, proteins, names)
        if not _fill(file, embedder, proteins, stop):
            say(
                f"⏸️ stopped after {file.done:,} of {len(proteins):,} proteins; the same command "
                f"goes on from there ({file.partial})"
            )
            return stop.received
        file.finish()
    say(f"💾 saved to {output} ({output.stat().st_size / 1e6:,.2f} MB)")
    return None


def plan_columns(embedder: Embedder, proteins: Proteins, name_bytes: int) -> dict[str, Column]:
    """The arrays of the file, as LAYOUT has them."""
    count, width = len(proteins), embedder.model.config.embed_dim
    dtype = embedder.model.embed_tokens.weight.dtype
    columns = {"names": Column(mx.uint8, (name_bytes,)), "offsets": Column(mx.int64, (count + 1,))}
    rows = {"mean": count, "bos": count, "per-residue": int(proteins.lengths.sum())}
    for what in sorted(embedder.include - {"contacts"}):
        for layer in embedder.layers:
            columns[f"{what}.{layer}"] = Column(dtype, (rows[what], width))
    if "contacts" in embedder.include:
        columns["contacts"] = Column(mx.float32, (int((proteins.lengths**2).sum()),))
        columns["contact_offsets"] = Column(mx.int64, (count + 1,))
    return columns


def _write_tables(file: EmbeddingFile, proteins: Proteins, names: bytes) -> None:
    """The arrays that are known before the model is run."""
    file.write("names", 0, np.frombuffer(names, np.uint8))
    file.write("offsets", 0, _offsets(proteins.lengths))
    if "contacts" in file.columns:
        file.write("contact_offsets", 0, _offsets(proteins.lengths**2))


def _fill(file: EmbeddingFile, embedder: Embedder, proteins: Proteins, stop: StopOnSignal) -> bool:
    """Embed what is not in the file yet; False where a signal came between."""
    offsets, contact_offsets = _offsets(proteins.lengths), _offsets(proteins.lengths**2)
    before = int(offsets[file.done])
    total = int(offsets[-1])
    if file.done:
        say(f"⏩ {file.done:,} of {len(proteins):,} proteins are there already")
    started = time.monotonic()
    with progress(total=total, initial=before, desc="🧬 embedding", unit="residue") as bar:
        places = range(file.done, len(proteins))
        for group in embedder.groups(places, lambda place: int(proteins.lengths[place])):
            found = embedder.run([proteins[place] for place in group])
            for place, embedding in zip(group, found, strict=True):
                _write(file, place, int(offsets[place]), int(contact_offsets[place]), embedding)
            end = group[-1] + 1
            file.commit(end, now=stop.received is not None)
            bar.update(int(offsets[end] - offsets[group[0]]))
            if stop.received is not None and end < len(proteins):
                return False
    seconds = time.monotonic() - started
    if total > before:
        say(
            f"🌳 {len(proteins):,} proteins, {total:,} residues, {(total - before) / seconds:,.0f} "
            f"residues/s in {duration(seconds)}"
        )
    return True


def _write(
    file: EmbeddingFile, place: int, first: int, first_contact: int, embedding: Embedding
) -> None:
    for layer, vector in embedding.mean.items():
        file.write(f"mean.{layer}", place, vector)
    for layer, vector in embedding.bos.items():
        file.write(f"bos.{layer}", place, vector)
    for layer, rows in embedding.per_residue.items():
        file.write(f"per-residue.{layer}", first, rows)
    if embedding.contacts is not None:
        file.write("contacts", first_contact, embedding.contacts)


def _about(
    embedder: Embedder, proteins: Proteins, names: bytes, weights_file: str
) -> dict[str, str]:
    """What the run is, for the reader of the file, and to know the same run again."""
    content = hashlib.blake2b(proteins.hashes.tobytes() + names, digest_size=16)
    return {
        "writer": "mlx-esm-kernels embed, layout 1",
        "model": Path(weights_file).name,
        "weights": fingerprint(embedder.model),
        "proteins": content.hexdigest(),
        "layers": json.dumps(embedder.layers),
        "include": json.dumps(sorted(embedder.include)),
        "long": embedder.long,
        "dtype": str(embedder.model.embed_tokens.weight.dtype).removeprefix("mlx.core."),
        "tokens_per_pass": str(embedder.tokens_per_pass),
    }


def fingerprint(model: ESM1) -> str:
    """A hash of the model's config, and of some hundred numbers of each of its parameters."""
    digest = hashlib.blake2b(json.dumps(model.config.to_dict()).encode(), digest_size=16)
    for name, parameter in sorted(dict(tree_flatten(model.parameters())).items()):
        flat = parameter.reshape(-1)
        some = flat[:: max(1, flat.size // 256)].astype(mx.float32)
        digest.update(name.encode() + np.array(some).tobytes())
    return digest.hexdigest()


def _offsets(sizes: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
    return np.concatenate([[0], np.cumsum(sizes)]).astype(np.int64)
