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
from .flags import open_model, plain_errors
from .generate import PSEUDO_PERPLEXITY, grow, require_room, sampling_flags

# A text without spaces as a list of masks and single characters.
_SYMBOLS = re.compile(r"<mask>|.", re.IGNORECASE | re.DOTALL)
_MASKS = ("*", "_", "<mask>")
_SHOWN = 5  # odd characters that an error message lists


@click.command("unmask", context_settings={"show_default": True}, epilog=PSEUDO_PERPLEXITY)
@sampling_flags
@click.option(
    "--seq", required=True, help="Residues and masks; each of * _ <mask> is one mask: MK*T<mask>_"
)
def command(weights_file: str, seq: str, output: Path | None, **flags: Any) -> None:
    """Fill the masks of a protein; the other residues stay as they are."""
    with plain_errors():
        model = open_model(weights_file)
        try:
            template = parse_template(seq, model.alphabet)
        except ValueError as error:
            raise click.BadParameter(str(error), param_hint="--seq") from None
        require_room(model, len(template), "--seq")
        grow(model, template, output, "unmasked", **flags)


def parse_template(text: str, alphabet: Alphabet) -> Tokens:
    """Token ids of residues and masks.

    Args:
        text: letters in either case; `*`, `_` and `<mask>` are masks; spaces are ignored.
        alphabet: the model's.

    Returns:
        (residues,) int32, at least one of them the mask token.

    Raises:
        ValueError: no residue at all, a character that is no residue, or no mask.
    """
    symbols: list[str] = _SYMBOLS.findall("".join(text.split()))
    if not symbols:
        raise ValueError("the sequence is empty; give residues and masks, such as MK*T.")
    masked = np.array([symbol.lower() in _MASKS for symbol in symbols])
    odd = [
        f"{symbol!r} (position {position})"
        for position, (symbol, mask) in enumerate(zip(symbols, masked, strict=True), start=1)
        if not mask and not is_residue(symbol, alphabet)
    ]
    if odd:
        more = f" and {len(odd) - _SHOWN} more" if len(odd) > _SHOWN else ""
        raise ValueError(
            f"not a residue: {', '.join(odd[:_SHOWN])}{more}; "
            f"write residues as letters, and a mask as *, _ or <mask>."
        )
    if not masked.any():
        raise ValueError("there is no mask to fill; write one as *, _ or <mask>.")
    # The letter in place of a mask does not matter; its token is replaced at once.
    letters = ["A" if mask else symbol for mask, symbol in zip(masked, symbols, strict=True)]
    return np.where(masked, alphabet.mask_idx, alphabet.encode("".join(letters))).astype(np.int32)
