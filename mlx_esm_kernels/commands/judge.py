"""`python -m mlx_esm_kernels.judge`: whether generated proteins look like natural ones."""

from __future__ import annotations

import json
from pathlib import Path

import click

from ..data.alphabet import ESM1B
from ..data.proteins import load_proteins
from ..data.sources import STDIN
from ..inference.naturalness import Naturalness, assess
from ..models.esm1 import ESM1, require_language_head
from ..pictures.naturalness import draw_naturalness
from ..system.console import say
from ..system.errors import DataError
from ..system.whole_file import whole_file
from .errors import errors_as_sentences
from .figure_files import require_figure_files
from .flags import (
    WEIGHTS_HELP,
    adapter_flag,
    as_protein_flag,
    device_flag,
    dtype_flag,
    model_name,
    open_model,
)
from .grouped_command import GroupedCommand
from .judge_record import distributions, record
from .judge_text import lines

TOLD = """\b
Beside each figure is what natural proteins have: random sets of them, as many
as were generated and about as long, against all others; their mean, and in
brackets the range of 95 % of the sets.
  KL              sum p ln(p / q): p of the set, q of the natural proteins
                  (whose counts start at one); 0 is the same
  low complexity  windows of 12 residues with at most 2.2 bits, SEG's trigger
  identity        same residues by columns of the best local alignment
                  (BLOSUM62, 11/1) among the 50 natural proteins that have the
                  most words of four residues in common with it
With --weights-file, residues are masked in turn, in generated proteins, in
natural ones, and in these with their residues shuffled. A model that did not
generate them says more; it may have seen the natural ones in its training.
"""

GROUPS = {
    "What to read": ["against", "weights-file", "adapter", "as-protein"],
    "What to write": ["json", "picture"],
    "How": ["sample", "seed", "dtype", "device"],
}


@click.command(
    "judge",
    cls=GroupedCommand,
    groups=GROUPS,
    context_settings={"show_default": True},
    epilog=TOLD,
)
@click.argument("generated", nargs=-1, required=True, metavar="FASTA...")
@click.option(
    "--against",
    required=True,
    multiple=True,
    metavar="FASTA",
    help="A file of natural proteins; may be given several times.",
)
@click.option("--weights-file", help=f"{WEIGHTS_HELP}, to ask about them too.")
@adapter_flag
@click.option(
    "--json",
    "json_file",
    type=click.Path(dir_okay=False, path_type=Path),
    help="A file to write with all figures.",
)
@click.option(
    "-o",
    "--picture",
    type=click.Path(dir_okay=False, path_type=Path),
    help="A .png to write: residues, lengths, complexity, relatives and likelihood.",
)
@click.option(
    "--sample",
    type=click.IntRange(min=1),
    default=64,
    help="Proteins of each kind, drawn at random, that are aligned and shown to the model.",
)
@click.option("--seed", type=click.IntRange(min=0), default=42, help="Same seed, same figures.")
@dtype_flag
@as_protein_flag
@device_flag
@errors_as_sentences()
def command(
    generated: tuple[str, ...],
    against: tuple[str, ...],
    weights_file: str | None,
    adapter: Path | None,
    dtype: str | None,
    json_file: Path | None,
    picture: Path | None,
    as_protein: bool,
    sample: int,
    seed: int,
) -> None:
    """Judge whether generated proteins look like natural ones (- is standard input).

    \b
    Examples:
      mlx-esm judge new.fasta --against natural.fasta --picture new.png
      mlx-esm judge new.fasta --against natural.fasta --weights-file W
    """
    require_figure_files(json_file, picture, *generated, *against, weights_file, adapter)
    _require_different(generated, against)
    model = _open_model(weights_file, dtype, adapter)
    proteins = load_proteins(generated, ESM1B, as_protein=as_protein)
    natural = load_proteins(against, ESM1B, as_protein=as_protein)
    found = assess(proteins, natural, ESM1B, model=model, sample=sample, seed=seed)
    name = None if weights_file is None else model_name(weights_file, adapter)
    for line in lines(found, name):
        say(line)
    if json_file is not None:
        text = json.dumps(record(found, proteins, natural, name), indent=1, allow_nan=False)
        with whole_file(json_file) as half_done:
            half_done.write_text(f"{text}\n", encoding="utf-8")
        say(f"💾 saved to {json_file}")
    if picture is not None:
        _draw(picture, found)
        say(f"💾 drawn to {picture}")


def _require_different(generated: tuple[str, ...], against: tuple[str, ...]) -> None:
    """Refuse a file that is given twice: each protein would be its own relative."""
    seen: list[tuple[str, Path | None]] = []
    for name in (*generated, *against):
        path = None if name == STDIN or not Path(name).exists() else Path(name)
        for other, there in seen:
            if other == name or (path is not None and there is not None and path.samefile(there)):
                what = "standard input" if name == STDIN else name
                raise DataError(
                    f"{what} is given twice; expected generated proteins, and others after "
                    f"--against."
                )
        seen.append((name, path))


def _open_model(weights: str | None, dtype: str | None, adapter: Path | None) -> ESM1 | None:
    if weights is None:
        if adapter is not None or dtype is not None:
            flag = "--adapter" if adapter is not None else "--dtype"
            raise click.UsageError(f"{flag} is of a model: give --weights-file, too.")
        return None
    say(f"📥 loading {weights}")
    model = open_model(weights, dtype, adapter)
    require_language_head(model.config)
    return model


def _draw(picture: Path, found: Naturalness) -> None:
    residues = [
        (
            one.value or 0.0,
            None if one.natural is None else (one.natural.mean, one.natural.low, one.natural.high),
        )
        for one in found.comparison.residues
    ]
    title = f"{len(found.generated):,} generated beside {found.num_natural:,} natural proteins"
    draw_naturalness(picture, residues, distributions(found), title=title)
