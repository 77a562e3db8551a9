"""Several processes of one program, as `mlx.launch` starts them on one machine."""

import contextlib
import os
import signal
import subprocess
import sys
from pathlib import Path

# What a process of `train` runs; a model so small that a step takes milliseconds.
TINY_TRAIN = """
import sys
from mlx_esm_kernels.commands import train
from mlx_esm_kernels.models.esm1 import ESM1Config
train.PRESETS["small"] = ESM1Config(
    num_layers=1, embed_dim=32, ffn_dim=64, num_heads=2, max_positions=64
)
train.command(sys.argv[1:])
"""


def launch(count, script, *arguments, **options):
    """A Popen of `count` processes of a script, joined in a ring; stdout has stderr with it.

    MLX's launcher is found beside this Python, and leaves the exit code at 0 whatever came of its
    processes.
    """
    launcher = Path(sys.executable).with_name("mlx.launch")
    # One thread each: on a test machine they share the cores.
    env = {**os.environ, "MLX_ESM_KERNELS_NUM_THREADS": "1", **options.pop("env", {})}
    ring = ["-n", str(count), "--backend", "ring", "--python", sys.executable]
    return subprocess.Popen(
        [launcher, *ring, "--", script, *map(str, arguments)],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        env=env,
        start_new_session=True,
        **options,
    )


def kill(process):
    """End the launcher and all that it has started, if they have not ended."""
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()


def output_of(process, seconds=120):
    """All that the processes said; they must have ended by then."""
    try:
        return process.communicate(timeout=seconds)[0]
    except subprocess.TimeoutExpired:
        kill(process)
        raise
