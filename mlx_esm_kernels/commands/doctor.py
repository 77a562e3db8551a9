"""`python -m mlx_esm_kernels.doctor`: whether the ops are right and fast on this machine."""

from __future__ import annotations

import json
from pathlib import Path

import click

from ..models.config import PRESETS
from ..ops.health import Report, add_checks, add_machine, add_serves, add_timings
from ..system.console import say
from ..system.whole_file import require_writable, whole_file
from .doctor_text import check_lines, machine_lines, serve_lines, timing_lines
from .errors import errors_as_sentences
from .flags import device_flag
from .grouped_command import GroupedCommand


def head_dims() -> list[int]:
    """D of the models that there are presets for, the released ones among them."""
    return sorted({config.head_dim for config in PRESETS.values()})


@click.command("doctor", cls=GroupedCommand)
@click.option("--quick", is_flag=True, help="Time nothing; some seconds instead of a minute.")
@click.option(
    "--json",
    "json_file",
    type=click.Path(dir_okay=False, path_type=Path),
    help="A file to write with all that was found.",
)
@device_flag
@click.pass_context
@errors_as_sentences()
def command(context: click.Context, quick: bool, json_file: Path | None) -> None:
    """Check the ops on this machine, and say what to paste into a report.

    Each op runs forward and backward in small cases, in each dtype and for the head dims D of the
    models, and is compared with float64. On an Apple GPU these are our Metal kernels, elsewhere
    our CPU ops. Then calls of attention are timed, ours beside MLX's.

    The exit code is 1 where a check failed or could not be made, else 0; what else fails is a
    line.

    \b
    Examples:
      mlx-esm doctor
      mlx-esm doctor --quick --json doctor.json
    """
    if json_file is not None:
        require_writable(json_file)
    report = Report()
    add_machine(report)
    _say(machine_lines(report))
    add_checks(report, head_dims())
    _say(check_lines(report))
    add_serves(report, head_dims())
    _say(serve_lines(report))
    if not quick and report.device != "metal-emulator":
        add_timings(report)
        _say(timing_lines(report))
    if report.problems:
        _say(["problems", *(f"  {problem}" for problem in report.problems)])
    if json_file is not None:
        with whole_file(json_file) as half_done:
            text = json.dumps(report.to_dict(), indent=1, allow_nan=False)
            half_done.write_text(f"{text}\n", encoding="utf-8")
        say(f"💾 saved to {json_file}")
    say("🌳 all checks passed" if report.healthy else "🍂 not all checks passed")
    context.exit(0 if report.healthy else 1)


def _say(lines: list[str]) -> None:
    for line in lines:
        say(line)
