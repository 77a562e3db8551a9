"""`python -m mlx_esm_kernels.convert`: weights of any format as ours, or as transformers' own."""

from __future__ import annotations

from pathlib import Path

import click

from ..models.dtypes import DTYPES
from ..models.int8 import NAME as INT8
from ..models.int8 import quantize_int8
from ..system.console import say
from ..system.whole_file import require_no_input
from ..weights import RELEASED
from .choice import Choice
from .errors import errors_as_sentences
from .flags import open_model
from .grouped_command import GroupedCommand
from .quantizing import LIMIT, require_small_drift
from .written_weights import SAFETENSORS, require_output, to_option, write_model


@click.command("convert", cls=GroupedCommand, epilog=f"Released models: {', '.join(RELEASED)}.")
@click.argument("source", metavar="IN")
@click.argument("target", metavar="OUT", type=click.Path(path_type=Path))
@to_option
@click.option(
    "--dtype",
    type=Choice(list(DTYPES)),
    help="Precision of the numbers in OUT.  [default: that of IN]",
)
@click.option(
    "--quantize",
    type=Choice([INT8]),
    help="Round the weights of the layers' linear modules to 8 bits: a quarter of the size, faster "
    "on a CPU, and for inference alone.",
)
@click.option(
    "--check",
    type=click.Path(path_type=Path),
    metavar="FASTA",
    help="With --quantize: measure what it costs on these proteins, and write nothing where that "
    f"is more than {LIMIT:.0%} of the perplexity.",
)
@errors_as_sentences()
def command(
    source: str,
    target: Path,
    form: str,
    dtype: str | None,
    quantize: str | None,
    check: Path | None,
) -> None:
    """Write the weights IN as OUT, a .safetensors file that needs no torch.

    IN is a model of the ESM family (ESM-1, ESM-1b, ESM-1v, ESM-2): a .pt file of fair-esm (with
    NAME-contact-regression.pt beside it), a folder of Hugging Face, an .npz of the first mlx-esm, a
    .safetensors file of ours, or the name of a released model, which is downloaded. .pt and .bin
    files need torch: pip install "mlx-esm-kernels[convert]".

    With --to hugging-face OUT is a new folder, with the weights and the tokenizer, which
    EsmForMaskedLM.from_pretrained and AutoTokenizer.from_pretrained load. ESM-1 is no model of
    transformers. Every model has a contact head there: of one that has none here, as after training
    from nothing, transformers will say that it is newly initialized.

    With --quantize int8 OUT serves embed, score and whatever else asks a model for answers; to
    train it, to add an adapter or to give it to transformers, keep IN.

    \b
    Examples:
      mlx-esm convert esm1b_t33_650M_UR50S.pt esm1b.safetensors
      mlx-esm convert --quantize int8 --check A.fasta W small.safetensors
      mlx-esm convert --to hugging-face runs/swissprot-1 my-esm
    """
    if check is not None and quantize is None:
        raise click.UsageError("--check is of what --quantize costs: give both, or neither.")
    if quantize is not None and form != SAFETENSORS:
        raise click.UsageError("--quantize int8 is of our own files: leave out --to.")
    require_no_input(target, source, *([] if check is None else [check]))
    require_output(target, form)
    say(f"📥 reading {source}")
    model = open_model(source, dtype)
    if check is not None:
        require_small_drift(model, check)
    elif quantize is not None:
        quantize_int8(model)
    write_model(target, model, form)
