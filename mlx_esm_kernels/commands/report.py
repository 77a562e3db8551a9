"""`python -m mlx_esm_kernels.report`: a page about a training run."""

from __future__ import annotations

import math
import shlex
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import click
from mlx.utils import tree_flatten

from ..data.baselines import FREQUENCIES, NEIGHBOURS
from ..data.corpus import Corpus, open_corpus
from ..data.download import missing_downloads
from ..data.floor import FLOOR
from ..data.residue_classes import RESIDUE_CLASSES
from ..data.sources import STDIN
from ..inference.evaluation import MODEL, Evaluation
from ..inference.run_report import (
    SEED,
    Sample,
    held_out_targets,
    made_by,
    no_contacts,
    num_made_by,
    on_held_out,
    target_counts,
)
from ..models.esm1 import ESM1
from ..pictures.report_page import RunPage, ShownSample
from ..pictures.run_charts import Rows
from ..system.console import progress, say
from ..system.errors import DataError, UserError
from ..system.whole_file import require_no_input, require_writable, whole_file
from ..training.config_file import ConfigFile, read_config
from ..training.record import read_rows
from ..training.run_folder import RunFolder, run_folder_to_read
from ..training.validation import Validation, perplexity
from .errors import errors_as_sentences
from .flags import device_flag, open_model
from .grouped_command import GroupedCommand

_Found = TypeVar("_Found")
# Perplexities of one computation on one machine and another; those of other proteins are not near.
_SAME_DATA = 1e-4


@click.command("report", cls=GroupedCommand, context_settings={"show_default": True})
@click.argument("run_dir", type=click.Path(path_type=Path))
@click.option(
    "-o",
    "--output",
    required=True,
    type=click.Path(dir_okay=False, path_type=Path),
    help="The page to write, NAME.html.",
)
@device_flag
@errors_as_sentences()
def command(run_dir: Path, output: Path) -> None:
    """Make a page about a training run: its curves, and what its weights say of proteins.

    RUN_DIR is the folder of a run of train, which may still go on. The page is one file; it opens
    without a network. What cannot be had, such as data that have gone, is a sentence on it. Nothing
    is downloaded for it, but for the base of an adapter that is not here any more.

    \b
    Examples:
      mlx-esm report runs/sample-1 -o report.html
    """
    if output.suffix.lower() not in (".html", ".htm"):
        raise UserError(f"{output} must end in .html.")
    require_no_input(output, run_dir)
    require_writable(output)
    page = run_page(_Run.read(run_dir))
    with whole_file(output) as half_done:
        # A path may have bytes that are no text.
        half_done.write_text(page.html(), encoding="utf-8", errors="replace")
    for sentence in dict.fromkeys(page.missing.values()):
        say(f"   {sentence}")
    say(f"🔭 open {output} in a browser")


@dataclass(frozen=True)
class _Run:
    """What a run left behind; what it did not is None or empty, and `missing` says why.

    Attributes:
        folder: its files.
        rows: of its record.
        config: what it was begun with.
        missing: sentences, by the part of the page that lacks something.
    """

    folder: RunFolder
    rows: Rows
    config: ConfigFile | None
    missing: dict[str, str]

    @classmethod
    def read(cls, run_dir: Path) -> _Run:
        """Those of a folder.

        Raises:
            RunFolderError: it is none of a run.
        """
        folder = run_folder_to_read(run_dir)
        missing: dict[str, str] = {}
        rows: Rows = []
        if folder.metrics.exists():
            rows = _or_why(missing, "curves", lambda: read_rows(folder.metrics)) or []
        if not rows:
            missing.setdefault("curves", "The run has no rows in its record, metrics.jsonl, yet.")
        config = None
        if folder.config.exists():
            config = _or_why(missing, "config", lambda: read_config(str(folder.config)))
        if config is None:
            missing.setdefault("config", "The run has no config.toml.")
        return cls(folder, rows, config, missing)

    def model(self) -> ESM1:
        """The model as it was last saved.

        Raises:
            UserError: there is none, or it cannot be used.
        """
        folder = self.folder
        if folder.adapter.exists():
            model = {} if self.config is None else self.config.tables.get("model", {})
            base = model.get("weights_file") if isinstance(model, Mapping) else None
            if not isinstance(base, str):
                raise UserError("The run trained an adapter, and no config.toml names its base.")
            return open_model(base, adapter=folder.adapter)
        if not folder.weights.exists():
            raise UserError("The run has saved no weights yet.")
        return open_model(str(folder.weights))

    def corpus(self, model: ESM1) -> Corpus:
        """The proteins that the run was begun with.

        Raises:
            UserError: they are not here, or are others now.
        """
        if self.config is None:
            raise DataError("Without config.toml nobody knows what the data were.")
        data = self.config.tables.get("data", {})
        names = data.get("data", []) if isinstance(data, Mapping) else None
        partitions = data.get("dataset_partitions", []) if isinstance(data, Mapping) else None
        if not _all_are(names, str) or not _all_are(partitions, int):
            raise DataError(f"{self.config.name}, [data]: expected a list of files or numbers.")
        if STDIN in names:
            raise DataError("The run read its data from standard input, which has gone.")
        absent = missing_downloads(names, partitions)
        if absent:
            raise DataError(f"The run's data are not here any more: {', '.join(absent)}.")
        as_protein = data.get("as_protein") is True
        corpus = open_corpus(names, partitions, model.alphabet, as_protein=as_protein)
        self._require_same(corpus, model)
        return corpus

    def _require_same(self, corpus: Corpus, model: ESM1) -> None:
        """The residue frequencies that the run found say whether the proteins are still those."""
        found = [row["unigram_perplexity"] for row in self.rows if "unigram_perplexity" in row]
        if not found:
            return
        now = Validation(
            corpus.proteins,
            corpus.train,
            corpus.valid,
            model.alphabet,
            max_positions=model.config.max_positions,
        )
        if abs(perplexity(now.unigram_loss) - found[-1]) > _SAME_DATA * found[-1]:
            raise DataError(
                "The data are not those that the run was begun with: residue frequencies reach a "
                f"perplexity of {perplexity(now.unigram_loss):.4f}, and reached {found[-1]:.4f}."
            )


def run_page(run: _Run) -> RunPage:
    """What the page shows of a run."""
    missing = run.missing
    say("📥 loading the run")
    model = _or_why(missing, "samples", run.model)
    corpus = evaluation = None
    counts: dict[str, int] = {}
    samples: list[Sample] = []
    if model is None:
        missing["confusion"] = missing["contacts"] = missing["samples"]
    else:
        corpus = _or_why(missing, "confusion", lambda: run.corpus(model))
        samples = _or_why(missing, "samples", lambda: _made(model)) or []
        contactless = no_contacts(model) or missing.get("samples")
        if contactless is not None:
            missing["contacts"] = contactless[:1].upper() + contactless[1:]
    if model is not None and corpus is not None:
        measured = _or_why(missing, "confusion", lambda: _measured(model, corpus))
        evaluation, counts = measured if measured is not None else (None, {})
    if evaluation is None and "curves" not in missing:
        missing["neighbours"] = f"There is no line of neighbours: {_lower(missing['confusion'])}"
    command = None
    if run.config is not None:
        command = f"mlx-esm train --config {shlex.quote(str(run.folder.config.resolve()))}"
    return RunPage(
        name=run.folder.weights.parent.resolve().name,
        subtitle=_subtitle(run, model, corpus),
        figures=_figures(run.rows, model, evaluation),
        rows=run.rows,
        levels=_levels(run.rows, evaluation),
        confusion=None if evaluation is None else evaluation.confusion,
        counts=counts,
        confusion_note=_note(evaluation, corpus),
        samples=[_shown(sample) for sample in samples],
        sampled=f"Drawn as mlx-esm generate draws by default, at temperature 1, with "
        f"seed {SEED}. The bar below a residue is its confidence: the probability of the residue "
        "with it alone masked, empty for 0 % and full for 100 %. Colours are classes of residues.",
        classes=RESIDUE_CLASSES,
        config=None if run.config is None else run.folder.config.read_text("utf-8-sig"),
        command=command,
        missing=missing,
    )


def _or_why(missing: dict[str, str], what: str, find: Callable[[], _Found]) -> _Found | None:
    """What is found; where it cannot be had, None, and `missing` says why."""
    try:
        return find()
    except UserError as error:
        missing[what] = " ".join(str(error).split())
        return None


def _made(model: ESM1) -> list[Sample]:
    with progress(total=num_made_by(model), desc="🌱 generating", unit="residue") as bar:
        return made_by(model, bar.update)


def _measured(model: ESM1, corpus: Corpus) -> tuple[Evaluation, dict[str, int]]:
    targets = held_out_targets(corpus.proteins, corpus.valid, model)
    with progress(total=len(targets), desc="🔍 measuring", unit="residue") as bar:
        found = on_held_out(model, targets, corpus.proteins, corpus.train, bar.update)
    return found, target_counts(targets)


def _shown(sample: Sample) -> ShownSample:
    note = f"{len(sample.sequence)} residues, pseudo-perplexity {sample.pseudo_perplexity:.2f}"
    return ShownSample(sample.sequence, sample.confidence, note, sample.contacts)


def _subtitle(run: _Run, model: ESM1 | None, corpus: Corpus | None) -> str:
    parts = [f"A training run in {run.folder.weights.parent.resolve()}"]
    if model is not None:
        config = model.config
        parts.append(f"{config.num_layers} layers of {config.embed_dim} numbers")
    if corpus is not None:
        parts.append(corpus.summary())
    return "; ".join(parts) + "."


def _levels(rows: Rows, evaluation: Evaluation | None) -> dict[str, float]:
    """Perplexities that need no model."""
    keys = {FREQUENCIES: "unigram_perplexity", FLOOR: "floor_perplexity"}
    levels = {}
    for name, key in keys.items():
        known = [row[key] for row in rows if key in row]
        if known:
            levels[name] = known[-1]
    if evaluation is not None:
        levels[NEIGHBOURS] = evaluation.whole.scores[NEIGHBOURS].perplexity
    return levels


def _figures(
    rows: Rows, model: ESM1 | None, evaluation: Evaluation | None
) -> list[tuple[str, str]]:
    """Names and values, as they are read."""
    figures: list[tuple[str, str]] = []

    def last(key: str, name: str, spec: str) -> None:
        known = [row[key] for row in rows if key in row]
        if known:
            figures.append((name, f"{known[-1]:{spec}}"))

    last("step", "steps", ",.0f")
    last("valid_perplexity", "held-out perplexity", ".2f")
    valid = [(row["valid_perplexity"], row["step"]) for row in rows if "valid_perplexity" in row]
    if valid:
        best, step = min(valid)
        figures.append(("lowest held-out perplexity", f"{best:.2f}, at step {step:,.0f}"))
    last("unigram_perplexity", "perplexity of residue frequencies", ".2f")
    last("floor_perplexity", "entropy floor, the best there is", ".2f")
    last("valid_bound", "held-out bound over all mask rates (nats per residue)", ".3f")
    last("train_loss", "training loss (nats)", ".3f")
    for key, name, spec in (
        ("residues_per_second", "residues/s, mean", ",.0f"),
        ("waiting", "time spent waiting for data", ".1%"),
    ):
        known = [row[key] for row in rows if key in row]
        if known:
            figures.append((name, f"{math.fsum(known) / len(known):{spec}}"))
    if model is not None:
        figures.append(("parameters", f"{_size(model):,}"))
    if evaluation is not None:
        error = evaluation.perplexity_error
        spread = "" if error is None else f" ± {error:.2f}"
        figures.append(("perplexity of the saved weights", f"{evaluation.perplexity:.2f}{spread}"))
        figures.append(("masked residues put right", f"{evaluation.accuracy:.1%}"))
    return figures


def _size(model: ESM1) -> int:
    return sum(parameter.size for parameter in dict(tree_flatten(model.parameters())).values())


def _note(evaluation: Evaluation | None, corpus: Corpus | None) -> str:
    if evaluation is None or corpus is None:
        return ""
    whole = evaluation.whole
    return (
        f"The mean probability of each residue, over {whole.num_targets:,} masked residues of "
        f"{whole.num_proteins:,} held-out proteins: perplexity "
        f"{whole.scores[MODEL].perplexity:.2f}, where residue frequencies reach "
        f"{whole.scores[FREQUENCIES].perplexity:.2f} and neighbours "
        f"{whole.scores[NEIGHBOURS].perplexity:.2f}. The masks are those of evaluate, not those "
        "of the run's own validation; what is missing to 100 % in a row went to other tokens."
    )


def _all_are(values: object, kind: type) -> bool:
    return isinstance(values, list) and all(type(value) is kind for value in values)


def _lower(sentence: str) -> str:
    return sentence[:1].lower() + sentence[1:]
