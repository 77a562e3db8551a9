"""What `train` says of a run, before and after."""

from __future__ import annotations

import mlx.core as mx
from mlx.utils import tree_flatten

from ..data.corpus import Corpus
from ..models.esm1 import ESM1, describe
from ..models.low_rank import low_rank_layers
from ..system.console import duration, say
from ..training.run import RunFiles
from ..training.run_folder import RunFolder
from ..training.settings import Outcome
from ..training.validation import Validation, perplexity


def say_what(model: ESM1, what: str, folder: RunFolder, processes: int) -> None:
    """What is trained, and where."""
    device = mx.default_device().type.name
    where = f"on the {device}" if processes == 1 else f"by {processes} processes on the {device}"
    trained = sum(x.size for x in dict(tree_flatten(model.trainable_parameters())).values())
    if low_rank_layers(model):
        what += f" an adapter of {trained:,} parameters for"
    say(f"🚂 {what} {describe(model)} {where}, in {folder.weights.parent}")


def report(
    outcome: Outcome, fill: float, validation: Validation, corpus: Corpus, files: RunFiles
) -> None:
    """Say what came of it: the comparison that shows whether it learned, and where all is."""
    say(
        f"🌳 {outcome.steps:,} steps in {duration(outcome.seconds)}: "
        f"{outcome.residues / 1e6:.3g} M residues"
        + (f", batches {fill:.0%} full, " if fill else ", ")
        + f"{outcome.waiting:.0%} of the time waiting for data"
    )
    if not outcome.steps:
        say("   stopped before the first step, so there are no weights to save")
        return
    if outcome.valid_loss is not None:
        kind = "synthetic proteins" if corpus.optimal_loss is not None else "proteins"
        say(
            f"   perplexity on {validation.num_targets:,} masked residues of "
            f"{validation.num_proteins:,} held-out {kind}:"
        )
        say(f"     residue frequencies {perplexity(validation.unigram_loss):7.2f}")
        say(f"     this model          {perplexity(outcome.valid_loss):7.2f}")
        if validation.floor_loss is not None:
            floor = perplexity(validation.floor_loss)
            say(f"     entropy floor       {floor:7.2f}  (no model can do better)")
    if outcome.valid_bound is not None:
        bound = f"{outcome.valid_bound:.3f} nats per residue"
        say(f"   bound of the likelihood, over all mask rates: {bound}")
    say(f"💾 {'weights' if files.adapter is None else 'adapter'} saved to {files.path}")
    say(f"📈 {files.folder.plot} and {files.folder.metrics}")
    weights = str(files.path)
    if files.adapter is not None:
        weights = f"{files.adapter.base.name} --adapter {files.path}"
    say(f"🌱 next: mlx-esm generate --weights-file {weights}", whole=True)
