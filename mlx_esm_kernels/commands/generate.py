"""`python -m mlx_esm_kernels.generate`: new proteins from a trained model.

Also what `unmask` shares with it: the sampling flags, and the way from masks to FASTA.
"""

from __future__ import annotations

import os
import textwrap
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import click
import numpy as np

from ..data.alphabet import Alphabet
from ..inference.likelihood import Floats, Tokens, pseudo_perplexity
from ..inference.sampling import ORDERS, Sampling, fill_masks
from ..models.esm1 import ESM1
from ..system.console import progress, say
from .flags import open_model, plain_errors, weights_flag

LINE_WIDTH = 60  # residues in a line of FASTA, as UniProt has it

PSEUDO_PERPLEXITY = (
    "Each protein comes with its pseudo-perplexity: exp of the mean of -log p(residue), each "
    "residue masked in turn with all the others in sight. 1 is certainty; 20 is no better than "
    "a guess among the 20 amino acids. Lower is more like the proteins that the model has learned."
)

_Function = TypeVar("_Function", bound=Callable[..., Any])

_FLAGS = (
    weights_flag,
    click.option(
        "--num-samples", type=click.IntRange(min=1), default=1, help="Proteins, in one batch."
    ),
    click.option(
        "--temperature",
        type=click.FloatRange(min=0, min_open=True),
        default=1.0,
        help="Below 1 is bolder, above 1 more varied.",
    ),
    click.option(
        "--top-p",
        type=click.FloatRange(min=0, max=1, min_open=True),
        default=1.0,
        help="Choose among the fewest residues whose probabilities reach this together.",
    ),
    click.option(
        "--order",
        type=click.Choice(ORDERS),
        default="left-to-right",
        help="Which mask is filled next; confident: where the best residue is the surest.",
    ),
    click.option(
        "--max-prob-only",
        is_flag=True,
        help="Always the most probable residue; --temperature and --top-p play no part.",
    ),
    click.option(
        "--seed", type=click.IntRange(min=0), default=42, help="Same seed, same proteins."
    ),
    click.option(
        "-o",
        "--output",
        type=click.Path(dir_okay=False, allow_dash=True, path_type=Path),
        help="FASTA file to write.  [default: the screen]",
    ),
)


def sampling_flags(function: _Function) -> _Function:
    """Add the flags that `generate` and `unmask` share."""
    for flag in reversed(_FLAGS):
        function = flag(function)
    return function


@click.command("generate", context_settings={"show_default": True}, epilog=PSEUDO_PERPLEXITY)
@sampling_flags
@click.option("--length", type=click.IntRange(min=1), default=100, help="Residues in a protein.")
def command(weights_file: str, length: int, output: Path | None, **flags: Any) -> None:
    """Generate proteins: all positions start as masks and are filled one by one."""
    with plain_errors():
        model = open_model(weights_file)
        require_room(model, length, "--length")
        template = np.full(length, model.alphabet.mask_idx, dtype=np.int32)
        grow(model, template, output, "generated", **flags)


def require_room(model: ESM1, residues: int, flag: str) -> None:
    """Raise BadParameter where a protein would be longer than the position table."""
    most = model.config.max_residues
    if residues > most:
        raise click.BadParameter(
            f"{residues} residues are too many: the position table of this model ends at {most}.",
            param_hint=flag,
        )


def grow(
    model: ESM1,
    template: Tokens,
    output: Path | None,
    name: str,
    *,
    num_samples: int,
    **flags: Any,
) -> None:
    """Fill the masks of a template, score the proteins, and write them as FASTA.

    Args:
        model: the model.
        template: (residues,) token ids, some of them masks.
        output: file to write; None or "-": standard output.
        name: the proteins are called NAME_1, NAME_2, ...
        num_samples: number of proteins.
        flags: the fields of `Sampling`.

    Raises:
        ValueError: a field of `Sampling` cannot be, or the model gives NaN.
    """
    alphabet = model.alphabet
    destination = None if output is None or str(output) == "-" else output
    if destination is not None:
        _require_folder(destination)
    tokens: Tokens = np.tile(alphabet.with_specials(template), (num_samples, 1))
    masks = int((tokens == alphabet.mask_idx).sum())
    sampling = Sampling(**flags)
    with progress(total=masks, desc="🌱 generating", unit="residue") as bar:
        tokens = fill_masks(model, tokens, sampling, bar.update)
    total = num_samples * len(template)
    with progress(total=total, desc="🔍 scoring", unit="residue") as bar:
        perplexities = pseudo_perplexity(model, tokens, bar.update)
    _write(_fasta(alphabet, tokens, perplexities, name, sampling.seed), destination)
    say(_summary(perplexities, len(template), destination), err=True)


def _require_folder(path: Path) -> None:
    """Refuse an output that cannot be written before the work is done, not after it."""
    if not path.parent.is_dir():
        raise click.BadParameter(f"there is no folder {path.parent}.", param_hint="-o")
    if not os.access(path if path.exists() else path.parent, os.W_OK):
        raise click.BadParameter(f"{path} cannot be written.", param_hint="-o")


def _fasta(alphabet: Alphabet, tokens: Tokens, perplexities: Floats, name: str, seed: int) -> str:
    """One record per row of tokens (N, L), less cls and eos."""
    records = []
    for number, (row, perplexity) in enumerate(zip(tokens, perplexities, strict=True), start=1):
        residues = alphabet.decode(row[alphabet.residue_slice])
        records.append(
            f">{name}_{number} pseudo_perplexity={perplexity:.3f} "
            f"length={len(residues)} seed={seed}\n" + "\n".join(textwrap.wrap(residues, LINE_WIDTH))
        )
    return "\n".join(records) + "\n"


def _write(fasta: str, destination: Path | None) -> None:
    if destination is None:
        click.echo(fasta, nl=False)
        return
    try:
        destination.write_text(fasta, encoding="ascii", newline="\n")
    except OSError as error:
        raise click.ClickException(f"{destination} cannot be written: {error.strerror}.") from None


def _summary(perplexities: Floats, residues: int, destination: Path | None) -> str:
    count = len(perplexities)
    proteins = "1 protein" if count == 1 else f"{count} proteins"
    low, high = f"{perplexities.min():.2f}", f"{perplexities.max():.2f}"
    span = low if low == high else f"{low} to {high}"
    saved = f", saved to {destination}" if destination else ""
    return f"🌳 hello world: {proteins} of {residues} residues, pseudo-perplexity {span}{saved}"
