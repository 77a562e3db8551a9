"""Lines and bars, on a terminal and in a pipe."""

import io
import os
import subprocess
import sys
import warnings

import pytest
from terminal import written_on_terminal

from mlx_esm_kernels.system.console import duration, fit, progress, say, warnings_as_lines

WORK = """
from mlx_esm_kernels.system.console import progress, say
say("📥 loading data")
with progress(range(3), desc="🚂 training") as bar:
    for i in bar:
        bar.set_postfix_str(f"loss {i}")
        say(f"🔍 step {i}")
say("💾 weights saved to runs/é")
"""
LINES = "📥 loading data\n🔍 step 0\n🔍 step 1\n🔍 step 2\n💾 weights saved to runs/é\n"


def run(code, **environment):
    return subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        env={**os.environ, "PYTHONIOENCODING": "utf-8", **environment},
        timeout=60,
    )


def run_on_terminal(code, **environment):
    """What the process writes to a terminal (both streams); it has gone well."""
    written, returncode = written_on_terminal(code, **environment)
    assert returncode == 0
    return written


def test_in_a_pipe_there_are_the_lines_and_nothing_else():
    result = run(WORK)
    assert result.stdout.decode() == LINES
    assert result.stderr == b""


def test_on_a_terminal_every_line_is_whole_and_what_is_over_at_once_has_no_bar():
    written = run_on_terminal(WORK)
    assert "🚂 training" not in written
    lines = [line.split("\r")[-1] for line in written.split("\r\n")]
    for line in LINES.splitlines():
        assert line in lines


def test_a_terminal_that_cannot_redraw_gets_no_bar():
    assert run_on_terminal(WORK, TERM="dumb") == LINES.replace("\n", "\r\n")


def test_an_encoding_without_emoji_gets_the_words():
    result = run(WORK, PYTHONIOENCODING="latin-1")
    assert result.returncode == 0
    assert result.stdout.decode("latin-1").splitlines()[0] == "loading data"
    assert result.stdout.decode("latin-1").splitlines()[-1] == "weights saved to runs/é"


def test_a_reader_that_has_gone_does_not_stop_the_work():
    code = "from mlx_esm_kernels.system.console import say\nimport sys\n"
    code += "for i in range(100_000): say('🔍 a line that nobody reads')\n"
    code += "say('finished', err=True)"
    command = [sys.executable, "-c", code]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        process.stdout.readline()
        process.stdout.close()
        assert process.stderr.read() == b"finished\n"
    assert process.returncode == 0


def test_lines_go_to_standard_error_when_standard_output_is_data(capsys):
    say("🌱 generating", err=True)
    assert capsys.readouterr() == ("", "🌱 generating\n")


def test_a_silent_bar_counts_and_hands_on_what_it_goes_through():
    with progress([3, 1, 2], desc="🚂") as bar:
        bar.set_postfix_str("loss 1")
        assert list(bar) == [3, 1, 2]
    with progress(total=5, unit="B", initial=2) as bar:
        bar.update(3)


def test_fit_leaves_a_line_alone_where_the_encoding_has_it():
    stream = io.TextIOWrapper(io.BytesIO(), encoding="utf-8")
    assert fit("  📥 data", stream) == "  📥 data"
    assert fit("📥 data", io.StringIO()) == "📥 data"


def test_a_warning_is_one_line(capsys):
    with warnings_as_lines():
        warnings.warn("2 characters are no residues.", UserWarning, stacklevel=1)
    assert capsys.readouterr().err == "⚠️ 2 characters are no residues.\n"


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0.2, "0 s"),
        (59.4, "59 s"),
        (59.6, "1 min 0 s"),
        (200, "3 min 20 s"),
        (3599.7, "1 h 0 min"),
        (7500, "2 h 5 min"),
    ],
)
def test_durations_read_as_a_person_would_say_them(seconds, text):
    assert duration(seconds) == text
