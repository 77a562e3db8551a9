"""The options of `fit`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from ..data.labelled import LEVELS, TASKS, UNKNOWN_LABEL
from ..models.low_rank import KEYS
from .choice import Choice
from .flags import as_protein_flag, device_flag, dtype_flag, long_flag, require_finite, weights_flag
from .lora_options import (
    LORA_RATE,
    lora_keys_option,
    lora_layers_option,
    lora_rank_option,
    lora_scale_option,
)

_OPTIONS = [
    weights_flag,
    click.option(
        "--data",
        required=True,
        type=click.Path(path_type=Path),
        help="A table with a line of names, of commas, semicolons or tabs, plain or compressed.",
    ),
    click.option("--sequence-col", default="sequence", help="Column with the sequences."),
    click.option("--target-col", required=True, help="Column with what is to be predicted."),
    click.option(
        "--task",
        required=True,
        type=Choice(TASKS),
        help="regression: of numbers; classification: of names.",
    ),
    click.option(
        "--level",
        type=Choice(LEVELS),
        default="protein",
        help="residue: a target has as many characters as the sequence has residues (HHHEEC), or "
        "as many numbers, with spaces or semicolons between them.",
    ),
    click.option(
        "-o",
        "--output",
        required=True,
        type=click.Path(path_type=Path),
        metavar="HEAD_DIR",
        help="Folder to make.",
    ),
    click.option(
        "--split-col",
        help="Column with train, valid or test.  [default: parts by a hash of the sequence]",
    ),
    click.option(
        "--valid-fraction",
        type=click.FloatRange(0, 0.5, min_open=True),
        callback=require_finite,
        default=0.1,
        help="Share of the proteins by which the best epoch is chosen.",
    ),
    click.option(
        "--test-fraction",
        type=click.FloatRange(0, 0.49),
        callback=require_finite,
        default=0.2,
        help="Share of the proteins that judge.",
    ),
    click.option(
        "--unknown-label",
        default=UNKNOWN_LABEL,
        help='The character of residues whose class is unknown; "": there is none.',
    ),
    click.option(
        "--layers",
        type=int,
        multiple=True,
        default=(-1,),
        metavar="N...",
        help="Layers whose embeddings are the features, side by side; -1 is the last.",
    ),
    click.option(
        "--wild-type",
        type=click.Path(path_type=Path),
        metavar="FASTA",
        help="The sequences are variants of the one in it, with substitutions: the features are "
        "the embeddings of the changed residues, not the mean over all.",
    ),
    click.option(
        "--hidden", type=click.IntRange(min=1), help="Width of a layer between.  [default: none]"
    ),
    click.option(
        "--learning-rate",
        type=click.FloatRange(0, 1, min_open=True),
        callback=require_finite,
        default=1e-3,
        help="AdamW's.",
    ),
    click.option(
        "--weight-decay",
        type=click.FloatRange(min=0),
        callback=require_finite,
        default=0.01,
        help="AdamW's.",
    ),
    click.option("--max-epochs", type=click.IntRange(min=1), default=500, help="The most epochs."),
    click.option(
        "--patience",
        type=click.IntRange(min=1),
        default=20,
        help="Epochs without a better one after which training ends.",
    ),
    lora_rank_option(
        "After the head alone, train low-rank products beside the model's weights together with "
        "it: an adapter, which goes to HEAD_DIR; the weights stay as they are. Every epoch goes "
        "through the whole model and back, which takes far longer, and more memory, than a head "
        "alone."
    ),
    lora_scale_option,
    lora_layers_option,
    lora_keys_option(KEYS),
    click.option(
        "--lora-learning-rate",
        type=click.FloatRange(0, 1, min_open=True),
        callback=require_finite,
        default=LORA_RATE,
        help="AdamW's, of the products and of the head beside them.",
    ),
    click.option(
        "--lora-epochs",
        type=click.IntRange(min=1),
        default=20,
        help="The most epochs with products.",
    ),
    click.option(
        "--lora-patience",
        type=click.IntRange(min=1),
        default=5,
        help="As --patience, of the epochs with products.",
    ),
    click.option("--seed", type=click.IntRange(min=0), default=42, help="Same seed, same head."),
    long_flag(", as embed has it."),
    dtype_flag,
    as_protein_flag,
    device_flag,
]

# How --help shows them.
GROUPS = {
    "What to read": [
        "weights-file",
        "data",
        "sequence-col",
        "target-col",
        "task",
        "level",
        "unknown-label",
        "wild-type",
        "as-protein",
    ],
    "What to write": ["output"],
    "Parts": ["split-col", "valid-fraction", "test-fraction"],
    "How": [
        "layers",
        "hidden",
        "learning-rate",
        "weight-decay",
        "max-epochs",
        "patience",
        "seed",
        "long",
        "dtype",
        "device",
    ],
    "With an adapter": [
        "lora-rank",
        "lora-scale",
        "lora-layers",
        "lora-keys",
        "lora-learning-rate",
        "lora-epochs",
        "lora-patience",
    ],
}


def fit_options(command: Any) -> Any:
    """Give a command all of them, in this order."""
    for option in reversed(_OPTIONS):
        command = option(command)
    return command
