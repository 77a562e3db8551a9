"""Fill in the table of the CPU's targets: python bench/report.py [--fasta FILE] [--out FOLDER].

Writes report.md, report.png and report.json. Minutes; --only does it in pieces, which add up in the
folder. docs/performance.md has the command that holds all sides to AVX2.
"""

from __future__ import annotations

import json
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import click
from harness.command import check_device
from harness.measuring import describe_machine, lengths_in_words, machine_in_words, open_proteins
from report_parts import PARTS
from report_parts.lines import Line, Part, Setting

NOTES = (
    "Shapes: attention (B, H, L, D), models (layers, C, FFN, heads). float32 where nothing else is "
    "said.",
    "Each comparison ran in one process, in turns, after a warm-up of the function that is timed; "
    "figures are medians; the timings say of how many calls. A function that needs more than a "
    "second and a half (the largest training step, and models of lower precision: six) is timed "
    "once. What was disturbed by other programs was repeated. malloc keeps freed memory, for all "
    "sides.",
    "x: the other side's time over ours (for models, our residues a second over the other's). "
    "Several shapes: each has its figure, and the worst decides. Where that falls short, the last "
    "figure is what it would be if our useful work ran at the machine's GEMM rate.",
    "GEMM rate: the fastest float32 product of two 1536 x 1536 matrices at hand, in the same turns "
    "as what it is compared with. Useful work: products of pairs in one protein, seven for "
    "forward and backward, of which one computes the scores again.",
    "torch: contiguous float32, inference_mode in forward, a boolean mask of keys where lengths "
    "differ, its default threads. Ours skips padded keys and queries; torch's padded queries are "
    "worked on.",
    "Stock MLX: mx.fast.scaled_dot_product_attention on the CPU, one to a few calls.",
    "Training steps: masked-LM loss, clipping, AdamW (torch's fused one). Ours is the package's "
    "TrainStep on packed rows. The torch models get the whole FASTA sorted by length, cut into "
    "batches of as many tokens (2,048), and no mask where nothing is padded; a few batches evenly "
    "spread over it are timed, as many as of ours.",
    "Embeddings: the last layer's vectors, and their mean over each protein; all sides have the "
    "same weights and gave the same vectors. Ours is the package's Embedder, 4,096 tokens at a "
    "time in the order of the FASTA; the others' batches are as for training.",
    "Lower precision: both of ours have the same proteins, and the same weights before they are "
    "rounded. linear has GELU where it widens. Training keeps weights and moments in float32, as "
    "`train --precision bfloat16` does. esm-cpp packs too, has an interpreter of its own "
    "(--esm-cpp), and computes logits besides. All vectors agree as far as their precision goes. "
    "The GEMM rate is float32's, and no limit there.",
    "Memory is that of a fresh process: the larger of what MLX allocates and what the process "
    "grows by, threads' scratch included, less o, dq, dk and dv.",
)


def table(parts: dict[str, Part]) -> str:
    """The lines of all parts as a Markdown table."""
    rows = ["| work | against | target | measured | verdict |", "|---|---|---|---|---|"]
    for part in parts.values():
        for line in part.lines:
            rows.append(
                f"| {line.work} | {line.against} | {bound(line)} | {measured(line)} "
                f"| {verdict(line)} |"
            )
    return "\n".join(rows)


def figure_of(value: float, unit: str) -> str:
    return f"{value:.2f}{unit}" if value < 10 else f"{value:.0f}{unit}"


def bound(line: Line) -> str:
    return f"{'at most' if line.at_most else 'at least'} {line.target:g}{line.unit}"


def measured(line: Line) -> str:
    return "; ".join(f"{figure_of(v, line.unit)} {label}" for label, v in line.values.items())


def verdict(line: Line) -> str:
    if line.met is None:
        return line.note
    if line.met:
        return "met"
    said = f"**short**, {line.values[line.worst] / line.target:.2f} of it"
    limit = line.limits.get(line.worst)
    return f"{said}; GEMM rate: {figure_of(limit, line.unit)}" if limit else said


def timing_table(parts: dict[str, Part]) -> str:
    """Every timing behind the table."""
    rows = ["| work | way | ms | calls | GFLOP/s | of GEMM | residues/s | full |"]
    rows.append("|---|---|---:|---|---:|---:|---:|---:|")
    for part in parts.values():
        for row in part.timings:
            model = "residues_per_s" in row
            speed = f"{row['residues_per_s']:,.0f} | {row['fill']:.0%}" if model else "|"
            calls = "+".join(map(str, row["calls"])) if model else row["calls"]
            way = row["way"] + (" (disturbed)" if row["disturbed"] else "")
            rows.append(
                f"| {row['work']} | {way} | {row['seconds'] * 1e3:.2f} | {calls} "
                f"| {row['rate']:.1f} | {row['share']:.0%} | {speed} |"
            )
    return "\n".join(rows)


def disturbed_works(parts: dict[str, Part]) -> str:
    """A paragraph on what other programs disturbed in every try; empty where nothing was."""
    works = [row["work"] for part in parts.values() for row in part.timings if row["disturbed"]]
    if not works:
        return ""
    names = "; ".join(dict.fromkeys(works))
    return f"**Disturbed by other programs in every try, not to be trusted:** {names}.\n\n"


def write(folder: Path, about: dict[str, Any], parts: dict[str, Part], quick: bool) -> None:
    """report.md, report.png and report.json."""
    smoke = "**A smoke run on tiny shapes: the figures mean nothing.**\n\n" if quick else ""
    notes = "\n".join(f"- {note}" for note in NOTES)
    text = (
        f"# CPU figures\n\n{smoke}{machine_in_words(about)}.\nLengths: {about['lengths']}.\n\n"
        f"{table(parts)}\n\n{disturbed_works(parts)}## How\n\n{notes}\n\n"
        f"## Timings\n\n{timing_table(parts)}\n"
    )
    (folder / "report.md").write_text(text, encoding="utf-8")
    content = {"about": about, "parts": {name: part.to_dict() for name, part in parts.items()}}
    (folder / "report.json").write_text(json.dumps(content, indent=1))
    draw(parts, folder / "report.png", machine_in_words(about))


def draw(parts: dict[str, Part], path: Path, caption: str) -> None:
    """Each figure over its target, as bars from 1; what is to stay below its target upside down."""
    from matplotlib.figure import Figure

    bars = [
        (line, label) for part in parts.values() for line in part.lines for label in line.values
    ]
    figure = Figure(figsize=(10, 1.5 + 0.17 * len(bars)), layout="constrained")
    axes = figure.add_subplot()
    for place, (line, label) in enumerate(bars):
        value = line.values[label]
        over = line.target / value if line.at_most else value / line.target
        axes.barh(place, over - 1, left=1, color="tab:green" if over >= 1 else "tab:orange")
        shown = f" {figure_of(value, line.unit)} "
        axes.text(over, place, shown, ha="left" if over >= 1 else "right", va="center", fontsize=6)
    axes.set_yticks(range(len(bars)), [name_of_bar(*bar) for bar in bars], fontsize=6)
    axes.axvline(1, color="black", linewidth=1)
    axes.set_xscale("log", base=2)
    axes.xaxis.set_major_formatter("{x:g}")
    axes.margins(x=0.1, y=0.01)
    axes.invert_yaxis()
    axes.set_xlabel("measured / target (right of 1: met)", fontsize=8)
    figure.supxlabel(caption, fontsize=5, wrap=True)
    figure.savefig(path, dpi=150)


def name_of_bar(line: Line, label: str) -> str:
    """What is compared, in a few words."""
    work = ",".join(line.work.split(":")[0].split(",")[:2])
    against = line.against.split(",")[0].split(" on the same")[0].split(" with that")[0]
    return f"{work} {label} / {against}"


def earlier_parts(folder: Path, about: dict[str, Any]) -> dict[str, Part]:
    """What was measured into this folder before, on this very machine."""
    file = folder / "report.json"
    if not file.exists():
        return {}
    content = json.loads(file.read_text())
    if content["about"] != about:
        raise click.ClickException(
            f"{file} holds figures of another machine, other versions or other proteins; give "
            "another --out, or delete it."
        )
    return {name: Part.from_dict(part) for name, part in content["parts"].items()}


@click.command()
@click.option(
    "--out", "folder", type=click.Path(file_okay=False, path_type=Path), default=Path("runs/report")
)
@click.option("--fasta", type=click.Path(exists=True, dir_okay=False), help="Real proteins.")
@click.option(
    "--only", multiple=True, type=click.Choice(list(PARTS)), help="A part; may be given again."
)
@click.option(
    "--esm-cpp",
    default="",
    metavar="PYTHON",
    help="An interpreter that has the package esm-cpp, as for bench/embed.py.",
)
@click.option("--quick", is_flag=True, help="Tiny shapes, to see that everything runs.")
def main(folder: Path, fasta: str | None, only: tuple[str, ...], esm_cpp: str, quick: bool) -> None:
    """Measure what the CPU ops must reach, and write the table and a plot."""
    check_device("cpu")
    proteins, where = open_proteins(fasta)
    about = {
        **describe_machine("cpu"),
        "lengths": lengths_in_words(proteins, where),
        "quick": quick,
    }
    folder.mkdir(parents=True, exist_ok=True)
    parts = earlier_parts(folder, about) if only else {}
    click.echo(machine_in_words(about))
    setting = Setting(proteins, where, fasta, quick, esm_cpp=esm_cpp)
    if quick:
        setting = replace(setting, repeats=1, budget_s=0.2)
    for name in only or PARTS:
        start = time.perf_counter()
        parts[name] = PARTS[name](setting)
        for line in parts[name].lines:
            click.echo(
                f"{line.work} / {line.against}: {measured(line)} ({bound(line)}: {verdict(line)})"
            )
        click.echo(f"  {name}: {time.perf_counter() - start:.0f} s")
        ordered = {part: parts[part] for part in PARTS if part in parts}
        write(folder, about, ordered, quick)
    click.echo(f"{folder / 'report.md'} and report.png")


if __name__ == "__main__":
    main()
