"""`python -m mlx_esm_kernels.view`: a page of structures, to look at in a browser."""

from __future__ import annotations

from pathlib import Path

import click

from ..inference.structure_view import view
from ..system.console import say
from ..system.errors import UserError
from ..system.whole_file import require_writable
from .errors import errors_as_sentences
from .flags import WEIGHTS_HELP, adapter_flag, device_flag, open_model
from .grouped_command import GroupedCommand

GROUPS = {
    "What to read": ["contacts", "weights-file", "adapter", "chain", "model", "confidence"],
    "What to write": ["output"],
    "How": ["device"],
}


@click.command("view", cls=GroupedCommand, groups=GROUPS, context_settings={"show_default": True})
@click.argument("structures", metavar="STRUCTURE...", nargs=-1, required=True)
@click.option(
    "-o",
    "--output",
    required=True,
    type=click.Path(dir_okay=False, path_type=Path),
    help="The page to write, NAME.html.",
)
@click.option(
    "--contacts",
    type=click.Path(path_type=Path),
    help="An .npz of the command contacts, to lay over the structures' own contacts.",
)
@click.option(
    "--weights-file", help=f"{WEIGHTS_HELP}, which predicts the contacts, instead of --contacts."
)
@adapter_flag
@click.option("--chain", help="The chain that the contacts are of.  [default: the first protein]")
@click.option(
    "--model",
    "model_number",
    type=click.IntRange(min=1),
    default=1,
    help="Which model of a file that has several.",
)
@click.option(
    "--confidence/--no-confidence",
    "has_confidence",
    default=None,
    help="Whether B-factors are a prediction's confidence.  [default: where the file says so]",
)
@device_flag
@errors_as_sentences()
def command(
    structures: tuple[str, ...],
    output: Path,
    contacts: Path | None,
    weights_file: str | None,
    adapter: Path | None,
    chain: str | None,
    model_number: int,
    has_confidence: bool | None,
) -> None:
    """Make a page of structures, PDB or mmCIF, plain or compressed.

    Several are shown side by side, or laid over the first of them. STRUCTURE may be a folder, such
    as a folding service gives back. The page is one file; it opens without a network.

    \b
    Examples:
      mlx-esm view model.pdb -o page.html
      mlx-esm view a.cif b.pdb --weights-file esm2_t6_8M_UR50D -o page.html
    """
    if output.suffix.lower() not in (".html", ".htm"):
        raise UserError(f"{output} must end in .html.")
    require_writable(output)
    if contacts is not None and weights_file is not None:
        raise click.UsageError("Give either --contacts or --weights-file.")
    if adapter is not None and weights_file is None:
        raise click.UsageError("--adapter needs --weights-file, its base.")
    if chain is not None and contacts is None and weights_file is None:
        raise click.UsageError("--chain is of contacts: give --contacts or --weights-file, too.")
    if any("\n" in structure for structure in structures):
        raise UserError("STRUCTURE must be a path; got text with more than one line.")
    say("📥 loading structures")
    page = view(
        *structures,
        contacts=contacts,
        model=None if weights_file is None else open_model(weights_file, adapter=adapter),
        chain=chain,
        model_number=model_number,
        has_confidence=has_confidence,
    )
    for line in page.lines:
        say(f"   {line}")
    page.save(output)
    say(f"🔭 open {output} in a browser")
