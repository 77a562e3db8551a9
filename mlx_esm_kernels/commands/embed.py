"""`python -m mlx_esm_kernels.embed`: embeddings of the proteins of FASTA files, in one file."""

from __future__ import annotations

import contextlib
from pathlib import Path
from typing import Any, cast

import click

from ..data.proteins import load_proteins
from ..distributed.pulse import Pulse
from ..distributed.ranks import Ranks, join_ranks
from ..inference.embedding import INCLUDES, Embedder
from ..inference.embedding_file import SUFFIXES, EmbeddingFile, require_embedding_output
from ..inference.embedding_run import EmbeddingRun
from ..inference.requirements import Long
from ..system.console import say
from ..system.interrupt import StopOnSignal
from ..system.whole_file import require_no_input
from .choice import Choice
from .errors import errors_as_sentences, one_speaks
from .flags import (
    adapter_flag,
    as_protein_flag,
    device_flag,
    dtype_flag,
    long_flag,
    model_name,
    open_model,
    weights_flag,
)
from .spread_command import SpreadCommand

LAYOUT = """\b
The arrays of OUT, for N proteins with R residues together, a model of
width C, and each layer of --layers (mean.33 is that of layer 33):
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


GROUPS = {
    "What to read": ["weights-file", "adapter", "as-protein"],
    "What to write": ["output", "overwrite", "layers", "include"],
    "How": ["long", "dtype", "device"],
}


@click.command(
    "embed",
    cls=SpreadCommand,
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
    type=Choice(INCLUDES),
    multiple=True,
    default=("mean",),
    help="What to write; several may follow.",
)
@long_flag(
    " that overlap by a quarter or more, each residue taken from the window in which it is farther "
    "from an end; the mean is over the residues, bos is the mean of the windows' bos."
)
@dtype_flag
@as_protein_flag
@device_flag
@click.option("--overwrite", is_flag=True, help="Begin anew, whatever is at OUT or OUT.partial.")
@errors_as_sentences()
def command(**options: Any) -> None:
    """Embed the proteins of FASTA files, plain or compressed (- is standard input).

    They go through the model packed side by side; a protein's embedding does not depend on the
    others.

    \b
    Examples:
      mlx-esm embed --weights-file esm2_t6_8M_UR50D p.fasta -o out.safetensors
      mlx-esm embed --weights-file W --include mean bos -o out.npz p.fasta
    """
    ranks = join_ranks()
    with one_speaks(ranks):
        stopped_by = _embed(ranks, **options)
    if stopped_by is not None:
        click.get_current_context().exit(128 + stopped_by)  # as shells count what a signal ended


def _embed(
    ranks: Ranks,
    *,
    fasta: tuple[str, ...],
    weights_file: str,
    output: Path,
    layers: tuple[int, ...],
    include: tuple[str, ...],
    long: str,
    dtype: str | None,
    adapter: Path | None,
    as_protein: bool,
    overwrite: bool,
) -> int | None:
    """Do what the options say; the signal that stopped it, or None."""
    if ranks.is_first:
        require_no_input(output, *fasta, weights_file, adapter)
        require_embedding_output(output, overwrite)
    say("📥 loading weights and proteins")
    model = open_model(weights_file, dtype, adapter)
    embedder = Embedder(model, layers=layers, include=include, long=cast(Long, long))
    proteins = load_proteins(fasta, model.alphabet, as_protein=as_protein)
    # Of an adapter with the folder around it: that is called after the run.
    named = None if adapter is None else Path(*adapter.resolve().parts[-2:])
    name = model_name(Path(weights_file).name, named)
    run = EmbeddingRun(embedder, proteins, weights_name=name)
    ranks.require_alike("weights and proteins", run.about)
    with contextlib.ExitStack() as stack:
        file = None
        stop = stack.enter_context(StopOnSignal())
        if ranks.is_first:
            file = EmbeddingFile(output, run.columns, run.about, overwrite=overwrite)
            stack.enter_context(file)
        pulse = stack.enter_context(Pulse(ranks, stop))
        whole = run.fill(file, pulse, ranks)
        if file is None:
            return None if whole else pulse.received
        if not whole:
            say(
                f"⏸️ stopped after {file.done:,} of {len(proteins):,} proteins; the same command "
                f"goes on from there ({file.partial})"
            )
            return pulse.received
        file.finish()
    say(f"💾 saved to {output} ({output.stat().st_size / 1e6:,.2f} MB)")
    return None
