"""`python -m mlx_esm_kernels.generate`: new proteins from a trained model."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import click
import numpy as np

from ..data.lengths import parse_lengths
from ..data.templates import parse_kept, read_starts
from ..inference.likelihood import Tokens
from ..inference.requirements import require_room, warn_long
from ..inference.sampling import Sampling
from ..models.esm1 import ESM1
from .errors import errors_as_sentences, errors_of_flag
from .flags import open_model
from .grouped_command import GroupedCommand
from .growing import (
    EPILOG,
    Growing,
    asked_sampling,
    fasta_file,
    grow,
    sampling_flags,
    sampling_groups,
    weights_name,
)

_LENGTH = "100"


@click.command(
    "generate",
    cls=GroupedCommand,
    groups=sampling_groups("num-samples", "length", "seed-sequence", "keep"),
    may_be_empty=["--seed-sequence"],  # it has its own sentence
    context_settings={"show_default": True},
    epilog=EPILOG,
)
@sampling_flags
@click.option(
    "--length",
    metavar="N|N-M|FASTA",
    help="Residues in a protein: a number, a range, or a file from whose proteins' lengths each "
    f"is drawn.  [default: {_LENGTH}]",
)
@click.option(
    "--seed-sequence",
    metavar="SEQ|FASTA",
    help="Start from it instead of random residues; from those of a file in turn.",
)
@click.option(
    "--keep",
    metavar="RANGES",
    help="Residues of --seed-sequence that stay as they are, as around a motif: 1-20,55.",
)
@errors_as_sentences()
def command(
    weights_file: str,
    output: Path | None,
    adapter: Path | None,
    num_samples: int,
    length: str | None,
    seed_sequence: str | None,
    keep: str | None,
    **flags: Any,
) -> None:
    """Generate proteins.

    A model that was trained with 15 % of the residues masked redraws random
    residues until they fit each other; one that was trained with any share of
    masks fills masks one by one.

    \b
    Examples:
      mlx-esm generate --weights-file esm2_t6_8M_UR50D --length 80 -o new.fasta
      mlx-esm generate --weights-file W --num-samples 64 --length 150-260
      mlx-esm generate --weights-file W --seed-sequence p.fasta --keep 1-20,55
      mlx-esm generate --weights-file W --sampler unmask --order left-to-right
    """
    file = fasta_file(output, weights_file, adapter)
    sampling = asked_sampling(**flags)
    if seed_sequence is not None and length is not None:
        raise click.UsageError("--length is that of --seed-sequence: give one of the two.")
    if keep is not None and seed_sequence is None:
        raise click.UsageError("--keep needs --seed-sequence, whose residues it names.")
    names = weights_name(weights_file, adapter)
    if seed_sequence is None:
        model = open_model(weights_file, adapter=adapter)
        templates = _of_lengths(model, length or _LENGTH, num_samples, sampling.seed)
        grow(model, Growing("generated", templates, None, names), sampling, file)
        return
    with errors_of_flag("--seed-sequence"):
        texts = read_starts(seed_sequence, num_samples)
    with errors_of_flag("--keep"):
        kept = [parse_kept(keep, len(text)) for text in texts] if keep else []
    if not keep:
        sampling = _from_starts(sampling)
        kept = [np.zeros(len(text), dtype=bool) for text in texts]
    model = open_model(weights_file, adapter=adapter)
    with errors_of_flag("--seed-sequence"):
        require_room(model, max(map(len, texts)), None, "")
    warn_long(model, np.array([len(text) for text in texts]), "")
    starts: list[Tokens] = [model.alphabet.encode(text).astype(np.int32) for text in texts]
    masked = [
        np.where(stays, ids, model.alphabet.mask_idx)
        for ids, stays in zip(starts, kept, strict=True)
    ]
    turns = [number % len(texts) for number in range(num_samples)]
    growing = Growing("generated", [masked[n] for n in turns], [starts[n] for n in turns], names)
    grow(model, growing, sampling, file)


def _of_lengths(model: ESM1, length: str, count: int, seed: int) -> list[Tokens]:
    """Nothing but masks, for each of some proteins."""
    with errors_of_flag("--length"):
        lengths = parse_lengths(length, model.config.max_residues)
        require_room(model, int(lengths.choices.max()), None, "")
    drawn = np.array([lengths.draw(seed, number) for number in range(count)])
    warn_long(model, drawn, "")
    return [np.full(residues, model.alphabet.mask_idx, np.int32) for residues in drawn.tolist()]


def _from_starts(sampling: Sampling) -> Sampling:
    """Sampling that starts from sequences of which no residue is kept: by gibbs."""
    if sampling.sampler == "unmask" or sampling.is_for_unmask:
        raise click.UsageError(
            "Of --seed-sequence the sampler unmask takes what --keep names: say which residues "
            "stay, or choose --sampler gibbs, which starts from all of it."
        )
    return dataclasses.replace(sampling, sampler="gibbs")
