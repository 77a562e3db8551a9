"""A fork after MLX was used is refused where it would hang; all other processes work."""

import subprocess
import sys

import pytest

CODE = """
import os, signal, sys
import mlx.core as mx
import mlx_esm_kernels as K
if "used" in sys.argv:
    model = K.ESM1(K.PRESETS["small"])
    list(K.embed(model, ["MKT"]))
child = os.fork()
if not child:
    signal.alarm(30)
    try:
        CALL
        print("worked", flush=True)
    except RuntimeError as error:
        print(error, flush=True)
    os._exit(0)
print(os.waitpid(child, 0)[1], flush=True)
"""
CALLS = {
    "a new model": 'K.ESM1(K.PRESETS["small"])',
    "the parent's model": 'list(K.embed(model, ["MKT"]))',
    "attention": "mx.eval(K.masked_attention(*[mx.ones((1, 1, 2, 8))] * 3))",
}


@pytest.mark.parametrize("call", CALLS)
def test_after_use_a_forked_process_is_told_to_spawn(call):
    code = CODE.replace("CALL", CALLS[call])
    run = subprocess.run([sys.executable, "-c", code, "used"], capture_output=True, text=True)
    assert run.stdout.startswith("MLX was used before this process was forked"), run.stderr
    assert "start processes with spawn" in run.stdout
    assert run.stdout.endswith("\n0\n")


def test_before_use_a_forked_process_works():
    code = CODE.replace("CALL", CALLS["a new model"])
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert run.stdout == "worked\n0\n", run.stderr
