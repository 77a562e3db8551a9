"""`python -m mlx_esm_kernels.unmask`: fill the masked residues of a protein."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import click
import numpy as np

from ..data.alphabet import Alphabet
from ..data.residues import is_residue
from ..inference.likelihood import Tokens
from ..inference.requirements import require_room, warn_long
from ..system.errors import UserError
from .errors import errors_as_sentences, errors_of_flag
from .flags import open_model
from .grouped_command import GroupedCommand
from .growing import PSEUDO_PERPLEXITY, fasta_file, grow, sampling_flags, sampling_groups

# A text without spaces as a list of masks and single characters.
_SYMBOLS = re.compile(r"<mask>|.", re.IGNORECASE | re.DOTALL)
_MASKS = ("*", "_", "<mask>")
_SHOWN = 5  # odd characters that an error message lists


@click.command(
    "unmask",
    cls=GroupedCommand,
    groups=sampling_groups("seq"),
    may_be_empty=["--seq"],  # it has its own sentence
    context_settings={"show_default": True},
    epilog=PSEUDO_PERPLEXITY,
)
@sampling_flags
@click.option(
    "--seq", required=True, help="Residues and masks; each of * _ <mask> is one mask: MK*T<mask>_"
)
@errors_as_sentences()
def command(
    weights_file: str, seq: str, output: Path | None, adapter: Path | None, **flags: Any
) -> None:
    """Fill the masks of a protein; the other residues stay as they are.

    \b
    Examples:
      mlx-esm unmask --weights-file esm2_t6_8M_UR50D --seq 'MKTAY<mask>AKQ**SF'
    """
    file = fasta_file(output, weights_file, adapter)
    model = open_model(weights_file, adapter=adapter)
    with errors_of_flag("--seq"):
        template = parse_template(seq, model.alphabet)
        require_room(model, len(template), None, "")
    warn_long(model, np.array([len(template)]), "")
    grow(model, template, file, "unmasked", **flags)


def parse_template(text: str, alphabet: Alphabet) -> Tokens:
    """Token ids of residues and masks.

    Args:
        text: letters in either case; `*`, `_` and `<mask>` are masks; spaces are ignored.
        alphabet: the model's.

    Returns:
        (residues,) int32, at least one of them the mask token.

    Raises:
        UserError: no residue at all, a character that is no residue, or no mask.
    """
    symbols: list[str] = _SYMBOLS.findall("".join(text.split()))
    if not symbols:
        raise UserError("the sequence is empty; give residues and masks, such as MK*T.")
    masked = np.array([symbol.lower() in _MASKS for symbol in symbols])
    odd = [
        f"{symbol!r} (position {position})"
        for position, (symbol, mask) in enumerate(zip(symbols, masked, strict=True), start=1)
        if not mask and not is_residue(symbol, alphabet)
    ]
    if odd:
        more = f" and {len(odd) - _SHOWN} more" if len(odd) > _SHOWN else ""
        raise UserError(
            f"not a residue: {', '.join(odd[:_SHOWN])}{more}; "
            f"write residues as letters, and a mask as *, _ or <mask>."
        )
    if not masked.any():
        raise UserError("there is no mask to fill; write one as *, _ or <mask>.")
    # The letter in place of a mask does not matter; its token is replaced at once.
    letters = ["A" if mask else symbol for mask, symbol in zip(masked, symbols, strict=True)]
    return np.where(masked, alphabet.mask_idx, alphabet.encode("".join(letters))).astype(np.int32)
