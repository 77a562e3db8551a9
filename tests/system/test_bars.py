"""Bars: on terminals of any width, in a pipe, in a notebook."""

import io
import os
import re
import subprocess
import sys
from types import SimpleNamespace

import pytest
from hypothesis import given
from hypothesis import strategies as st
from terminal import EVERY_STEP, show
from tqdm import notebook
from tqdm.utils import disp_len

from mlx_esm_kernels.system import bars, console
from mlx_esm_kernels.system.console import progress

AT_ONCE = "from mlx_esm_kernels.system import bars, console; console.SECONDS_BEFORE = 1e-9\n"
OFTEN = "from mlx_esm_kernels.system import bars; bars.SECONDS_PER_LINE = 0\n"
WORK = """
from mlx_esm_kernels.system.console import progress, say
say("📥 loading data")
with progress(total=1.0, desc="🚂 training", unit="", initial=0) as bar:
    for i in range(1, 5):
        bar.set_postfix_str(f"{i * 1000:,}/4,000, loss {3 / i:.3f}, 1.23M residues/s")
        bar.update(0.25)
        if i == 3:
            say("🔍 a line that is much longer than a narrow terminal is wide")
say("💾 saved")
"""
RUN = """
from mlx_esm_kernels.commands.cli import main
weights = "runs/p-1/weights.safetensors"
for command in (
    "train --data p.fasta --num-iters 4 --tokens-per-batch 256 --seed 1",
    f"convert {weights} o.safetensors",
    "embed p.fasta --weights-file o.safetensors -o e.npz",
):
    try:
        main(command.split(), standalone_mode=False)
    except SystemExit as end:
        assert not end.code
"""


def proteins(folder):
    text = "".join(
        f">p{i}\n{'MKTAYIAKQRQISFVK'[i % 7 :]}{'ACDEFGHIK'[: i % 9]}\n" for i in range(60)
    )
    (folder / "p.fasta").write_text(text)
    return folder


@pytest.mark.parametrize("columns", [30, 40, 80, 120])
def test_a_bar_takes_one_line_of_a_terminal_and_is_gone_in_the_end(columns):
    shown = show(AT_ONCE + WORK, columns)
    assert shown.returncode == 0
    assert shown.bars("🚂 training")
    for screen in shown.screens:
        assert sum("|" in line or "left" in line for line in screen) <= 1, screen
    assert shown.lines[0] == "📥 loading data"
    assert shown.lines[-1] == "💾 saved"
    assert " ".join(line.strip() for line in shown.lines[1:-1]) == (
        "🔍 a line that is much longer than a narrow terminal is wide"
    )


def test_at_80_columns_the_bar_of_a_training_run_says_all():
    shown = show(AT_ONCE + WORK, 80).bars("🚂 training")
    said = r"🚂 training  75%\|.+\| 3,000/4,000, loss 1\.000, 1\.23M residues/s, \d\d:\d\d left"
    assert any(re.fullmatch(said, bar) for bar in shown), shown


@pytest.mark.slow
def test_commands_show_bars_of_one_line_at_80_columns(tmp_path):
    shown = show(AT_ONCE + RUN, 80, proteins(tmp_path))
    assert shown.returncode == 0, shown.lines
    for name in ("📥 loading", "🔍 validating", "🚂 training", "💾 writing", "🧬 embedding"):
        assert shown.bars(name), (name, shown.lines)
    assert any("residues/s" in bar and " left" in bar for bar in shown.bars("🚂 training"))
    # One bar, or one inside another; and no half of one at the end.
    assert max(sum("|" in line for line in screen) for screen in shown.screens) <= 2
    assert not any("|" in line for line in shown.lines)


def test_what_is_interrupted_leaves_no_bar():
    code = "import time\nfrom mlx_esm_kernels.system.console import progress, say\n"
    code += "try:\n  with progress(total=3, desc='🧬 embedding') as bar:\n"
    code += "    bar.update(); time.sleep(0.2); raise KeyboardInterrupt\n"
    code += "except KeyboardInterrupt: say('stopped')"
    shown = show(AT_ONCE + code, 80)
    assert shown.bars("🧬 embedding")
    assert shown.lines == ["stopped"]


def test_a_bar_appears_though_its_first_step_takes_long():
    code = AT_ONCE.replace("1e-9", "0.2") + "import time\n"
    code += "with console.progress(total=3, desc='🧬 embedding') as bar: time.sleep(1)"
    assert show(code, 80).bars("🧬 embedding")


@pytest.mark.slow
def test_commands_write_plain_lines_into_a_pipe(tmp_path):
    done = subprocess.run(
        [sys.executable, "-c", OFTEN + RUN],
        cwd=proteins(tmp_path),
        env={**os.environ, **EVERY_STEP},
        capture_output=True,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr
    assert b"\r" not in done.stdout + done.stderr
    assert b"\x1b" not in done.stdout + done.stderr
    lines = done.stderr.decode().splitlines()
    trained = [line for line in lines if line.startswith("🚂 training")]
    said = r"🚂 training  50%, 2/4, loss \d\.\d+, [\d,]+ residues/s, \d\d:\d\d left"
    assert any(re.fullmatch(said, line) for line in trained), lines
    embedded = [line for line in lines if line.startswith("🧬 embedding")]
    assert any("residues/s" in line and "left" in line for line in embedded), lines
    assert "left" not in done.stdout.decode()


def test_in_a_pipe_there_is_a_line_every_half_minute(capsys, monkeypatch):
    seconds = [0.0]
    monkeypatch.setattr(bars.time, "monotonic", lambda: seconds[0])
    with progress(total=1000, desc="🧬 embedding", unit="residue") as bar:
        for _ in range(1000):
            seconds[0] += 0.2
            bar.update()
            bar.refresh()
    out, err = capsys.readouterr()
    assert out == ""
    assert len(err.splitlines()) == 200 // bars.SECONDS_PER_LINE
    assert "\r" not in err


def test_a_notebook_gets_a_widget_and_without_ipywidgets_a_line(monkeypatch):
    shell = SimpleNamespace(config={"IPKernelApp": {}})
    monkeypatch.setitem(sys.modules, "IPython", SimpleNamespace(get_ipython=lambda: shell))
    for widgets, is_widget in ((object, True), (None, False)):
        monkeypatch.setattr(notebook, "IProgress", widgets)
        bars.bar_in_notebook.cache_clear()
        assert issubclass(console.bar_class(), notebook.tqdm) == is_widget
        assert not issubclass(console.bar_class(), bars.Lines)
    bars.bar_in_notebook.cache_clear()
    shell.config.clear()  # IPython in a terminal, and here in a pipe
    assert console.bar_class() is bars.Lines


@given(
    columns=st.integers(20, 200),
    done=st.just(0.0) | st.floats(1e-6, 1),
    total=st.sampled_from([None, 1.0, 7, 12_345, 10**9]),
    name=st.text("🚂abc ", min_size=1, max_size=60),
    facts=st.sampled_from(["", "loss 2.345", "12/345, loss 2.345, 12,345 residues/s"]),
    unit=st.sampled_from(["", "B", "residue"]),
)
def test_a_bar_is_never_wider_than_its_terminal(columns, done, total, name, facts, unit):
    options = {"total": total, "desc": bars.short(name), "unit": unit, "ncols": columns}
    with bars.Bar(file=io.StringIO(), leave=False, delay=1e-9, **options) as bar:
        bar.start_t -= 100
        bar.set_postfix_str(facts, refresh=False)
        bar.update(done * (total or 10**6))
        assert disp_len(str(bar)) < columns
        if columns >= 60 and total and done > 0.001:
            assert " left" in str(bar)
