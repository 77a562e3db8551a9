"""The options of `train`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from ..data.download import UNIPARC_PARTITIONS
from ..models.config import OBJECTIVES
from ..models.dtypes import DTYPES
from ..models.esm1 import PRESETS
from ..models.low_rank import KEYS, KEYS_OF_MODEL
from ..training.checkpoint import Every
from ..training.config_file import DEFAULTS, read_config, recipe_names
from ..training.reports import REPORTS
from ..training.settings import OPTIMIZERS, SCHEDULES
from .choice import Choice
from .final_folder import parse_folder
from .flags import WEIGHTS_HELP, as_protein_flag, device_flag, require_finite
from .lora_options import (
    lora_keys_option,
    lora_layers_option,
    lora_rank_option,
    lora_scale_option,
)
from .train_config import take_config, take_resumed


def parse_partitions(
    ctx: click.Context, parameter: click.Parameter, values: tuple[str, ...]
) -> list[int]:
    """`("1,2", "5")` -> [1, 2, 5]; whole numbers with commas between them."""
    numbers = [number.strip() for value in values for number in value.split(",")]
    for number in numbers:
        if not number.isdecimal():
            raise click.BadParameter(
                f"expected partition numbers such as 1 or 1,2,3; got {number!r}.", ctx, parameter
            )
        if int(number) not in UNIPARC_PARTITIONS:
            raise click.BadParameter(f"expected partitions 1 to 200; got {number}.", ctx, parameter)
    return [int(number) for number in numbers]


def without_none(
    ctx: click.Context, parameter: click.Parameter, values: tuple[str, ...]
) -> tuple[str, ...]:
    """`none` -> nothing; it stands alone."""
    if "none" in values and set(values) != {"none"}:
        raise click.BadParameter(f"expected none alone; got {' '.join(values)}.", ctx, parameter)
    return () if "none" in values else values


_UNITS = {"s": 1, "m": 60, "h": 3600}


def parse_every(ctx: click.Context, parameter: click.Parameter, value: str | int) -> Every:
    """`500` -> steps, `90s`, `15m` or `2h` -> seconds, `never`."""
    number, unit = str(value).strip().lower(), ""
    if number == "never":
        return Every()
    if number[-1:] in _UNITS:
        number, unit = number[:-1], number[-1]
    if not number.isdecimal() or int(number) < 1:
        raise click.BadParameter(
            f"expected steps such as 500, a time such as 90s, 15m or 2h, or never; got {value!r}.",
            ctx,
            parameter,
        )
    return Every(seconds=int(number) * _UNITS[unit]) if unit else Every(steps=int(number))


_DEFAULTS = {k: v for table in read_config(DEFAULTS).tables.values() for k, v in table.items()}

_OPTIONS = [
    click.option(
        "--config",
        is_eager=True,
        callback=take_config,
        metavar="FILE|NAME",
        help="A TOML file with these options as keys in the tables [model] (with a model's sizes), "
        "[data] and [training]: the config.toml of a run, say, to do it again. Or a recipe by its "
        f"name: {', '.join(recipe_names())}. What is said beside it here wins.",
    ),
    click.option(
        "--data",
        multiple=True,
        default=_DEFAULTS["data"],
        metavar="PATH...|sample|swissprot|uniref50",
        help="FASTA files, plain or compressed (- is standard input); several may follow. sample "
        "is synthetic protein families, made on the spot; swissprot (90 MB) and uniref50 (about "
        "10 GB, and 30 GB for what is encoded of it) are downloaded once.",
    ),
    click.option(
        "--dataset-partitions",
        multiple=True,
        metavar="N,N,...",
        callback=parse_partitions,
        help="Partitions of UniParc, 1 to 200, downloaded once (each about 1 GB).",
    ),
    click.option(
        "--num-iters",
        type=click.IntRange(min=1),
        default=_DEFAULTS["num_iters"],
        help="Steps to train; where only --max-minutes is given, as many as there is time for.",
    ),
    click.option(
        "--max-minutes",
        type=click.FloatRange(min=0, min_open=True),
        callback=require_finite,
        help="Time to train, instead of --num-iters or as a further limit.",
    ),
    click.option(
        "--weights-dir",
        type=click.Path(file_okay=False, path_type=Path),
        help="Where weights, config.toml, metrics.jsonl and loss.png go.  "
        "[default: runs/NAME-1, -2, ...]",
    ),
    click.option(
        "--hugging-face",
        type=click.Path(path_type=Path),
        callback=parse_folder,
        metavar="DIR|none",
        help="A new folder that gets the weights at the end of the run as Hugging Face's "
        "transformers loads them (ESM-1b, ESM-1v and ESM-2), too.",
    ),
    click.option(
        "--weights-file",
        help=f"{WEIGHTS_HELP}, to go on from. A run of ours goes on in its folder; what else is "
        "given is never written to.",
    ),
    click.option(
        "--preset",
        type=Choice(list(PRESETS)),
        default=_DEFAULTS["preset"],
        help="Size of a new model.",
    ),
    click.option(
        "--objective",
        type=Choice(OBJECTIVES),
        help="What it learns: mlm, 15 % of the residues masked, to embed and score; diffusion, any "
        "share of each protein, to generate; mixed, mostly a quarter and at times any share, for "
        "both.  [default: that of --weights-file, or of --preset: mixed for small, medium and "
        "large, mlm for the others]",
    ),
    click.option(
        "--tokens-per-batch",
        type=click.IntRange(min=32),
        default=_DEFAULTS["tokens_per_batch"],
        help="Of a batch, into which proteins are packed; of all processes together.",
    ),
    click.option(
        "--learning-rate",
        type=click.FloatRange(min=0, min_open=True),
        default=_DEFAULTS["learning_rate"],
        show_default=False,
        callback=require_finite,
        help="The highest rate.  [default: 0.2 / width, which is 0.003 for small, and half of it "
        "where --objective is not mlm; of --lora-rank, 0.0005]",
    ),
    click.option(
        "--warmup",
        type=click.IntRange(min=0),
        default=_DEFAULTS["warmup"],
        show_default=False,
        help="Steps in which the rate rises to --learning-rate.  "
        "[default: 100, or a tenth of --num-iters]",
    ),
    click.option(
        "--schedule",
        type=Choice(SCHEDULES),
        default=_DEFAULTS["schedule"],
        help="How the rate goes down after the warm-up: linear and cosine to 0 at the end of the "
        "run, constant not at all, inverse-sqrt as 1 / sqrt(step).",
    ),
    click.option(
        "--optimizer",
        type=Choice(OPTIMIZERS),
        default=_DEFAULTS["optimizer"],
        help="muon: AdamW, and Muon for the matrices of the layers, at the same rate.",
    ),
    click.option(
        "--betas",
        nargs=2,
        type=click.FloatRange(min=0, max=1, max_open=True),
        default=_DEFAULTS["betas"],
        callback=require_finite,
        help="AdamW's: what stays of either moment in a step.",
    ),
    click.option(
        "--weight-decay",
        type=click.FloatRange(min=0),
        default=_DEFAULTS["weight_decay"],
        callback=require_finite,
        help="AdamW's.",
    ),
    click.option(
        "--clip-norm",
        type=click.FloatRange(min=0, min_open=True),
        default=_DEFAULTS["clip_norm"],
        callback=require_finite,
        help="The highest norm of all gradients together; larger ones are scaled down to it.",
    ),
    click.option(
        "--precision",
        type=Choice(list(DTYPES)),
        default=_DEFAULTS["precision"],
        help="Of activations and their gradients; weights and moments stay float32.",
    ),
    click.option(
        "--grad-accumulation",
        type=click.IntRange(min=1),
        default=_DEFAULTS["grad_accumulation"],
        help="Batches of a step: as one batch of so many times the tokens, in the memory of one.",
    ),
    click.option(
        "--grad-checkpointing/--no-grad-checkpointing",
        default=_DEFAULTS["grad_checkpointing"],
        help="Compute each layer again for its gradient: less memory, a third more work.",
    ),
    click.option(
        "--max-length",
        type=click.IntRange(min=8),
        help="Crop proteins to this many tokens in training.  [default: the model's max_positions, "
        "1,024 as a rule; rows of more are for models without a position table]",
    ),
    click.option(
        "--valid-every",
        type=click.IntRange(min=1),
        help="Steps between validations.  [default: ten times in a run]",
    ),
    click.option(
        "--seed",
        type=click.IntRange(min=0),
        default=_DEFAULTS["seed"],
        help="Of new weights, batches and masks.",
    ),
    click.option(
        "--checkpoint-every",
        "every",
        default=_DEFAULTS["checkpoint_every"],
        callback=parse_every,
        metavar="N|TIME|never",
        help="Steps, or time as in 90s, 15m or 2h, between checkpoints, from which --resume goes "
        "on.",
    ),
    click.option(
        "--keep",
        type=click.IntRange(min=1),
        default=_DEFAULTS["keep"],
        help="Checkpoints that are kept.",
    ),
    lora_rank_option(
        "Train low-rank products beside the frozen weights of --weights-file, and nothing "
        "else: an adapter, which other commands take as --adapter."
    ),
    lora_scale_option,
    lora_layers_option,
    lora_keys_option((*KEYS, *KEYS_OF_MODEL)),
    click.option(
        "--lora-dropout",
        type=click.FloatRange(min=0, max=1, max_open=True),
        default=0.0,
        help="Share of what goes into a product that is left out in training.",
    ),
    click.option(
        "--resume",
        type=click.Path(path_type=Path),
        is_eager=True,
        callback=take_resumed,
        metavar="RUN_DIR",
        help="Go on with a run that was stopped or killed, from its last checkpoint, as if it had "
        "never been; it has its own data and settings.",
    ),
    click.option(
        "--report-to",
        multiple=True,
        type=Choice([*REPORTS, "none"]),
        default=_DEFAULTS["report_to"],
        callback=without_none,
        help="Send the rows of metrics.jsonl and config.toml there as well (pip install wandb or "
        "tensorboardX); --resume goes on there.",
    ),
    as_protein_flag,
    device_flag,
]

# How --help shows them, what a newcomer needs first. An option that is nowhere here comes last.
GROUPS = {
    "What to train": ["data", "preset", "config", "weights-file", "resume"],
    "How long, and where it goes": [
        "num-iters",
        "max-minutes",
        "weights-dir",
        "hugging-face",
        "valid-every",
        "checkpoint-every",
        "keep",
        "report-to",
    ],
    "Learning": [
        "objective",
        "learning-rate",
        "warmup",
        "schedule",
        "optimizer",
        "betas",
        "weight-decay",
        "clip-norm",
        "seed",
    ],
    "Batches, memory and speed": [
        "tokens-per-batch",
        "max-length",
        "grad-accumulation",
        "grad-checkpointing",
        "precision",
        "device",
    ],
    "Fine-tuning": ["lora-rank", "lora-scale", "lora-layers", "lora-keys", "lora-dropout"],
    "More about data": ["dataset-partitions", "as-protein"],
}


def train_options(command: Any) -> Any:
    """Give a command all of them, in this order."""
    for option in reversed(_OPTIONS):
        command = option(command)
    return command
