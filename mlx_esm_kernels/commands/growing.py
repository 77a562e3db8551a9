"""What generate and unmask share: the sampling flags, and the way from masks to FASTA."""

from __future__ import annotations

import re
import textwrap
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import click
import numpy as np

from ..data.templates import as_ranges
from ..inference.filling import fill_masks
from ..inference.likelihood import Floats, Tokens, pseudo_perplexity
from ..inference.sampling import (
    BLOCK,
    LONGEST_RUN,
    ORDERS,
    ROUNDS,
    SAMPLERS,
    SCHEDULES,
    Sampling,
    settled,
    warn_untrained,
)
from ..models.esm1 import ESM1, require_language_head
from ..system.console import progress, say, was_closed
from ..system.errors import UserError
from ..system.whole_file import OutputError, require_no_input, require_writable, whole_file
from .choice import Choice
from .flags import adapter_flag, device_flag, require_finite, weights_flag

LINE_WIDTH = 60  # residues in a line of FASTA, as UniProt has it

EPILOG = (
    "Each protein comes with its pseudo-perplexity: exp of the mean of -log p(residue), each "
    "residue masked in turn with all the others in sight. 1 is certainty; 20 is no better than "
    "a guess among the 20 amino acids. Lower is more like the proteins that the model has learned, "
    "down to sequences that only repeat themselves."
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
        "--sampler",
        type=Choice(SAMPLERS),
        default="auto",
        help="unmask: fill masks, each of which stays as filled. gibbs: start from random residues "
        "and redraw them in blocks, as suits a model trained with 15 % masked. auto: by what the "
        "model was trained for.",
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
        "--max-prob-only",
        is_flag=True,
        help="Always the most probable residue; --temperature and --top-p play no part.",
    ),
    click.option(
        "--longest-run",
        type=click.IntRange(min=0),
        default=LONGEST_RUN,
        help="Never draw a residue that makes more than this many of the same side by side; 0: "
        "whatever the model says.",
    ),
    click.option(
        "--order",
        type=Choice(ORDERS),
        help="Which mask is filled next; confident: where the best residue is the surest.  "
        "[default: random]",
    ),
    click.option(
        "--steps",
        type=click.IntRange(min=1),
        help="Fill the masks in so many steps: faster, but those of one step do not see each "
        "other.  [default: one mask a step]",
    ),
    click.option(
        "--schedule",
        type=Choice(SCHEDULES),
        help="How many masks are filled in a step. cosine: few at first.  [default: linear]",
    ),
    click.option(
        "--rounds",
        type=click.IntRange(min=1),
        help=f"How often each residue is drawn anew.  [default: {ROUNDS}]",
    ),
    click.option(
        "--block",
        type=click.FloatRange(min=0, max=1, min_open=True),
        callback=require_finite,
        help="Share of the residues that is masked and drawn at once, at most; a round is a "
        f"random partition into such blocks.  [default: {BLOCK}]",
    ),
    click.option(
        "--burn-in",
        type=click.IntRange(min=0),
        help="The first of the rounds, which draw at temperature 1 from all residues; later ones "
        "obey --temperature, --top-p and --max-prob-only.  [default: half of the rounds]",
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


def sampling_groups(*template: str) -> dict[str, list[str]]:
    """Their headings; `template` are the options that say what is filled."""
    return {
        "What to read": ["weights-file", "adapter"],
        "What to write": ["output", *template],
        "How residues are drawn": [
            "sampler", "temperature", "top-p", "max-prob-only", "longest-run", "seed", "device",
        ],
        "Of the sampler unmask": ["order", "steps", "schedule"],
        "Of the sampler gibbs": ["rounds", "block", "burn-in"],
    }  # fmt: skip


@dataclass(frozen=True)
class Growing:
    """What is to be drawn, and what it is called.

    Attributes:
        name: the proteins are called NAME_1, NAME_2, ...
        templates: (residues,) token ids each, some of them masks, without cls and eos.
        starts: (residues,) token ids each, from which the sampler gibbs starts; None: random ones.
        weights: what a header says of the model.
    """

    name: str
    templates: Sequence[Tokens]
    starts: Sequence[Tokens] | None
    weights: dict[str, str]


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


def asked_sampling(**flags: Any) -> Sampling:
    """What the flags ask for; UsageError, with the exit code 2, where that cannot be."""
    try:
        return Sampling(**flags)
    except UserError as error:
        raise click.UsageError(_of_flags(error)) from None


def weights_name(weights: str, adapter: Path | None) -> dict[str, str]:
    """What headers say of a model: the names of its files, without where they lie."""
    names = {"weights": Path(weights).name if Path(weights).exists() else weights}
    if adapter is not None:
        names["adapter"] = adapter.resolve().name
    return names


def grow(model: ESM1, growing: Growing, sampling: Sampling, file: Path | None) -> None:
    """Fill masks, score the proteins, and write them as FASTA.

    Args:
        model: the model.
        growing: what is to be drawn.
        sampling: of `asked_sampling`.
        file: of `fasta_file`.

    Raises:
        UserError: the model has no language head, or gives NaN.
        OutputError: the file cannot be written; it is there whole or not at all.
    """
    require_language_head(model.config)
    alphabet = model.alphabet
    templates = [alphabet.with_specials(ids) for ids in growing.templates]
    starts = None
    if growing.starts is not None:
        starts = [alphabet.with_specials(ids) for ids in growing.starts]
    try:
        sampling = settled(sampling, model, templates)
    except UserError as error:
        raise click.UsageError(_of_flags(error)) from None
    say(_told(sampling, model), err=True)
    warn_untrained(sampling, model, templates)
    masks = sum(int(np.count_nonzero(ids == alphabet.mask_idx)) for ids in growing.templates)
    with progress(total=sampling.draws(masks), desc="🌱 generating", unit="residue") as bar:
        rows = fill_masks(model, templates, sampling, bar.update, starts=starts)
    lengths = np.array([len(ids) for ids in growing.templates])
    with progress(total=int(lengths.sum()), desc="🔍 scoring", unit="residue") as bar:
        scored = [pseudo_perplexity(model, row[None], bar.update) for row in rows]
    perplexities = np.concatenate(scored)
    proteins = [alphabet.decode(row[alphabet.residue_slice]) for row in rows]
    kept = [as_ranges(ids != alphabet.mask_idx) for ids in growing.templates]
    fasta = _fasta(proteins, perplexities, kept, growing, sampling)
    if file is None:
        _print(fasta)
    else:
        with whole_file(file) as half_done:
            half_done.write_text(fasta, encoding="ascii", newline="\n")
    say(_summary(perplexities, lengths, file), err=True)


def _of_flags(error: UserError) -> str:
    """The sentence about fields of `Sampling` as one about flags."""
    return str(error).replace("[Sampling] ", "").replace("burn_in", "burn-in")


def _told(sampling: Sampling, model: ESM1) -> str:
    if sampling.sampler == "gibbs":
        what = f"{sampling.rounds} rounds in {sampling.blocks} blocks"
    else:
        steps = "one mask a step" if sampling.steps is None else f"{sampling.steps} steps"
        what = f"{sampling.order} order, {steps}"
    return (
        f"🎲 sampler {sampling.sampler}: {what} (the model's objective: {model.config.objective})"
    )


def _print(fasta: str) -> None:
    try:
        click.echo(fasta, nl=False)
    except BrokenPipeError:
        raise  # the reader has had enough of it (`| head`), and click ends without a word
    except OSError as error:
        raise OutputError(f"Standard output cannot be written: {error.strerror}.") from None


def _fasta(
    proteins: list[str],
    perplexities: Floats,
    kept: list[str],
    growing: Growing,
    sampling: Sampling,
) -> str:
    """One record for each protein; its header says what was asked for, in words without spaces."""
    how = {**sampling.facts(), **growing.weights}
    records = []
    for number, (residues, perplexity, ranges) in enumerate(
        zip(proteins, perplexities, kept, strict=True), start=1
    ):
        facts = {
            "pseudo_perplexity": f"{perplexity:.3f}",
            "length": len(residues),
            "seed": sampling.seed,
            **how,
            **({"kept": ranges} if ranges else {}),
        }
        header = " ".join(f"{key}={_word(value)}" for key, value in facts.items())
        lines = "\n".join(textwrap.wrap(residues, LINE_WIDTH))
        records.append(f">{growing.name}_{number} {header}\n{lines}")
    return "\n".join(records) + "\n"


def _word(value: Any) -> str:
    """A value in a header: ASCII, without spaces."""
    shown = f"{value:g}" if isinstance(value, float) else str(value)
    return re.sub(r"[^!-~]", "_", shown)


def _summary(perplexities: Floats, lengths: Tokens, file: Path | None) -> str:
    count = len(perplexities)
    proteins = "1 protein" if count == 1 else f"{count} proteins"
    low, high = f"{perplexities.min():.2f}", f"{perplexities.max():.2f}"
    span = low if low == high else f"{low} to {high}"
    short, long = lengths.min(), lengths.max()
    residues = f"{short}" if short == long else f"{short} to {long}"
    saved = f", saved to {file}" if file else ""
    return f"🌳 hello world: {proteins} of {residues} residues, pseudo-perplexity {span}{saved}"
