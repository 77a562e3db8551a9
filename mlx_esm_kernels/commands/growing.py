"""What generate and unmask share: the sampling flags, and the way from masks to FASTA."""

from __future__ import annotations

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
from ..system.console import progress, say, was_closed
from ..system.whole_file import OutputError, require_no_input, require_writable, whole_file
from .choice import Choice
from .flags import adapter_flag, device_flag, require_finite, weights_flag

LINE_WIDTH = 60  # residues in a line of FASTA, as UniProt has it

PSEUDO_PERPLEXITY = (
    "Each protein comes with its pseudo-perplexity: exp of the mean of -log p(residue), each "
    "residue masked in turn with all the others in sight. 1 is certainty; 20 is no better than "
    "a guess among the 20 amino acids. Lower is more like the proteins that the model has learned."
)

_Function = TypeVar("_Function", bound=Callable[..., Any])

_FLAGS = (
    weights_flag,
    adapter_flag,
    device_flag,
    click.option(
        "--num-samples", type=click.IntRange(min=1), default=1, help="Proteins, in one batch."
    ),
    click.option(
        "--temperature",
        type=click.FloatRange(min=0, min_open=True),
        callback=require_finite,
        default=1.0,
        help="Below 1 is bolder, above 1 more varied.",
    ),
    click.option(
        "--top-p",
        type=click.FloatRange(min=0, max=1, min_open=True),
        callback=require_finite,
        default=1.0,
        help="Choose among the fewest residues whose probabilities reach this together.",
    ),
    click.option(
        "--order",
        type=Choice(ORDERS),
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


def sampling_groups(template: str) -> dict[str, list[str]]:
    """Their headings; `template` is the option that says what is filled."""
    return {
        "What to read": ["weights-file", "adapter"],
        "What to write": ["output", template, "num-samples"],
        "How": ["temperature", "top-p", "order", "max-prob-only", "seed", "device"],
    }


def fasta_file(output: Path | None, weights_file: str, adapter: Path | None) -> Path | None:
    """The file that --output names, which can be written; None where it is standard output.

    Raises:
        OutputError: it cannot be written, or is the weights or of the adapter.
    """
    if output is None or str(output) == "-":
        if was_closed("stdout"):
            raise OutputError("Standard output is closed: give -o FILE, or leave it open.")
        return None
    require_writable(output)
    require_no_input(output, weights_file, adapter)
    return output


def grow(
    model: ESM1,
    template: Tokens,
    file: Path | None,
    name: str,
    *,
    num_samples: int,
    **flags: Any,
) -> None:
    """Fill the masks of a template, score the proteins, and write them as FASTA.

    Args:
        model: the model.
        template: (residues,) token ids, some of them masks.
        file: of `fasta_file`.
        name: the proteins are called NAME_1, NAME_2, ...
        num_samples: number of proteins.
        flags: the fields of `Sampling`.

    Raises:
        UserError: a field of `Sampling` cannot be, or the model gives NaN.
        OutputError: the file cannot be written; it is there whole or not at all.
    """
    alphabet = model.alphabet
    tokens: Tokens = np.tile(alphabet.with_specials(template), (num_samples, 1))
    masks = int((tokens == alphabet.mask_idx).sum())
    sampling = Sampling(**flags)
    with progress(total=masks, desc="🌱 generating", unit="residue") as bar:
        tokens = fill_masks(model, tokens, sampling, bar.update)
    total = num_samples * len(template)
    with progress(total=total, desc="🔍 scoring", unit="residue") as bar:
        perplexities = pseudo_perplexity(model, tokens, bar.update)
    fasta = _fasta(alphabet, tokens, perplexities, name, sampling.seed)
    if file is None:
        _print(fasta)
    else:
        with whole_file(file) as half_done:
            half_done.write_text(fasta, encoding="ascii", newline="\n")
    say(_summary(perplexities, len(template), file), err=True)


def _print(fasta: str) -> None:
    try:
        click.echo(fasta, nl=False)
    except BrokenPipeError:
        raise  # the reader has had enough of it (`| head`), and click ends without a word
    except OSError as error:
        raise OutputError(f"Standard output cannot be written: {error.strerror}.") from None


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


def _summary(perplexities: Floats, residues: int, file: Path | None) -> str:
    count = len(perplexities)
    proteins = "1 protein" if count == 1 else f"{count} proteins"
    low, high = f"{perplexities.min():.2f}", f"{perplexities.max():.2f}"
    span = low if low == high else f"{low} to {high}"
    saved = f", saved to {file}" if file else ""
    return f"🌳 hello world: {proteins} of {residues} residues, pseudo-perplexity {span}{saved}"
