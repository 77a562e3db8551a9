"""The report's parts on whole models: training steps and embeddings, residues a second."""

from __future__ import annotations

from collections.abc import Callable

import embed
import train_step
from harness.command import Options, Row

from mlx_esm_kernels.inference.likelihood import TOKENS_PER_PASS

from .lines import LIMIT, Part, Setting, Shape, in_words, line, missing

REPEATS = 3  # turns of a step or a pass, after its warm-up


def training(shape: Shape, batches: int, budget_s: float = 3.0) -> Callable[[Setting], Part]:
    """The part for a model of (layers, C, FFN, heads); `budget_s` of each side and batch."""
    against = {
        "fair-esm": ("fair-esm's ProteinBertModel, padded, length-sorted", 3.0),
        "transformer-encoder": (
            "torch TransformerEncoder, fused attention, the same batches",
            1.5,
        ),
    }

    def measure(setting: Setting) -> Part:
        sizes = (1, 16, 32, 2) if setting.quick else shape
        rows = train_step.measure(
            sizes,
            setting.proteins,
            "real",
            model_options(sizes, list(against), setting),
            tokens=256 if setting.quick else 2048,
            count=1 if setting.quick else batches,
            budget_s=setting.budget_s if setting.quick else budget_s,
        )
        found = {in_words(sizes): residues_over_others(rows)}
        return model_part("training step", rows, found, against, setting)

    return measure


def embedding(setting: Setting) -> Part:
    against = {
        "fair-esm": ("fair-esm's ProteinBertModel, padded, length-sorted", 1.0),
        "transformers": ("transformers' EsmModel, SDPA, the same batches", 1.0),
    }
    rows, found = [], {}
    for sizes in [(1, 16, 32, 2)] if setting.quick else [(6, 320, 1280, 20), (12, 480, 1920, 20)]:
        of_shape = embed.measure(
            sizes,
            setting.proteins,
            "real",
            model_options(sizes, list(against), setting),
            tokens=256 if setting.quick else TOKENS_PER_PASS,
            count=1 if setting.quick else 2,
            budget_s=setting.budget_s,
        )
        found[in_words(sizes)] = residues_over_others(of_shape)
        rows += of_shape
    return model_part("embedding", rows, found, against, setting)


def model_options(sizes: Shape, ways: list[str], setting: Setting) -> Options:
    """The flags of a benchmark of models, timed against those of the ways that are there."""
    there = [
        way
        for way in ways
        if not missing(way) and (setting.esm_cpp or not way.startswith("esm-cpp"))
    ]
    return Options("cpu", "float32", [sizes], there, setting.fasta, REPEATS, None, None, None)


def residues_over(rows: list[Row], way: str) -> dict[str, float]:
    """Residues a second of one way over those of each other; `rows` are those of one shape."""
    rates = {row["way"]: row["residues_per_s"] for row in rows}
    return {other: rates[way] / rate for other, rate in rates.items() if other != way}


def residues_over_others(rows: list[Row]) -> dict[str, float]:
    """Our residues a second over each other's, and under its name with LIMIT what that would be at
    the GEMM rate; `rows` are those of one shape, ours first."""
    ours = rows[0]
    ratios = residues_over(rows, ours["way"])
    return ratios | {way + LIMIT: ratio / ours["share"] for way, ratio in ratios.items()}


def named(rows: list[Row], work: str, setting: Setting) -> list[Row]:
    """The rows, told apart from those of other parts."""
    return [{**row, "work": f"{work} {in_words(row['shape'])}, {setting.where}"} for row in rows]


def model_part(
    work: str,
    rows: list[Row],
    found: dict[str, dict[str, float]],
    against: dict[str, tuple[str, float]],
    setting: Setting,
) -> Part:
    """The part of a benchmark of models; `against` has for each way its words and the target."""
    lines = [
        line(f"{work}, residues/s, {setting.where}", words, way, target, found)
        for way, (words, target) in against.items()
    ]
    return Part(lines, named(rows, work, setting))
