"""`python -m mlx_esm_kernels.convert`: weights of any format as our .safetensors."""

from __future__ import annotations

from pathlib import Path

import click

from ..models.dtypes import DTYPES
from ..models.esm1 import describe
from ..system.console import say
from ..system.whole_file import require_writable
from ..weights import RELEASED, save_weights
from .errors import errors_as_sentences
from .flags import open_model


@click.command("convert", epilog=f"Released models: {', '.join(RELEASED)}.")
@click.argument("source", metavar="IN")
@click.argument("target", metavar="OUT", type=click.Path(dir_okay=False, path_type=Path))
@click.option(
    "--dtype",
    type=click.Choice(list(DTYPES)),
    help="Precision of the numbers in OUT.  [default: that of IN]",
)
@errors_as_sentences()
def command(source: str, target: Path, dtype: str | None) -> None:
    """Write the weights IN as OUT, a .safetensors file that needs no torch.

    IN is a .pt file of fair-esm (with NAME-contact-regression.pt beside it), a folder of Hugging
    Face, an .npz of the first mlx-esm, a .safetensors file of ours, or the name of a released
    model, which is downloaded. .pt and .bin files need torch:
    pip install "mlx-esm-kernels[convert]".
    """
    if target.exists() and Path(source).exists() and target.samefile(source):
        raise click.BadParameter(f"{target} is IN itself; give another name.", param_hint="OUT")
    require_writable(target)
    say(f"📥 reading {source}")
    model = open_model(source, dtype)
    save_weights(target, model)
    contacts = "with" if model.config.contact_head else "without"
    say(f"   {describe(model)}, {contacts} a contact regression")
    say(f"💾 saved to {target} ({target.stat().st_size / 1e6:,.1f} MB)")
