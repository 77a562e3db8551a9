"""What several processes tell each other."""

import json

import mlx.core as mx
import numpy as np
import pytest
from launching import launch, output_of

from mlx_esm_kernels.distributed.ranks import Ranks, join_ranks
from mlx_esm_kernels.system.errors import UserError

TOLD = """
import json, sys
import mlx.core as mx, numpy as np
from mlx_esm_kernels.distributed.ranks import join_ranks
from mlx_esm_kernels.system.errors import UserError

ranks = join_ranks()
n = ranks.number
odd = mx.array([-0.0, float("nan"), 1e-42, n])
sent = [odd, odd.astype(mx.bfloat16), mx.arange(3) + n]
refused = ""
try:
    ranks.require_alike("proteins", n == 2)
except UserError as error:
    refused = str(error)
ranks.require_alike("settings", {"a": 1})
told = {
    "count": ranks.count,
    "gathered": [x.decode() for x in ranks.gather(b"abc" * n)],
    "empty": [x.decode() for x in ranks.gather(b"")],
    "first": ranks.of_first(b"it" if ranks.is_first else b"another").decode(),
    "numbers": ranks.numbers(1 / 3 + n),
    "of_first": [np.array(x.view(mx.uint8)).tolist() for x in ranks.arrays_of_first(sent)],
    "mean": [x.tolist() for x in ranks.mean([mx.array([1.0, n]), mx.full((2, 1), 3.0 * n)])],
    "refused": refused,
}
open(f"{sys.argv[1]}/{n}.json", "w").write(json.dumps(told))
"""


def test_each_process_gets_what_all_have_given(tmp_path):
    script = tmp_path / "told.py"
    script.write_text(TOLD)
    said = output_of(launch(3, script, tmp_path))
    assert {path.name for path in tmp_path.glob("*.json")} == {f"{n}.json" for n in range(3)}, said
    got, *others = (json.loads((tmp_path / f"{n}.json").read_text()) for n in range(3))
    assert others == [got, got]
    assert got["count"] == 3
    assert got["gathered"] == ["", "abc", "abcabc"]
    assert got["empty"] == [""] * 3
    assert got["first"] == "it"
    assert got["numbers"] == [1 / 3, 1 + 1 / 3, 2 + 1 / 3]
    odd = mx.array([-0.0, float("nan"), 1e-42, 0])
    sent = [odd, odd.astype(mx.bfloat16), mx.arange(3)]
    assert got["of_first"] == [np.array(x.view(mx.uint8)).tolist() for x in sent]
    assert got["mean"] == [[1, 1], [[3], [3]]]
    assert "process 2 of 3 has another than process 0" in got["refused"]
    assert "proteins" in got["refused"]


def test_one_process_alone_hears_itself(monkeypatch):
    monkeypatch.delenv("MLX_RANK", raising=False)
    ranks = join_ranks()
    assert (ranks.number, ranks.count, ranks.is_first) == (0, 1, True)
    assert ranks.gather(b"x") == [b"x"]
    assert ranks.numbers(2.5) == [2.5]
    arrays = [mx.array([1.0])]
    assert ranks.mean(arrays) is arrays
    assert ranks.arrays_of_first(arrays)[0] is arrays[0]
    Ranks().require_alike("anything", object())


def test_who_cannot_reach_the_others_says_so(monkeypatch, tmp_path):
    """And does not begin a run of its own."""
    (tmp_path / "hosts.json").write_text("no hosts")
    monkeypatch.setenv("MLX_RANK", "1")
    monkeypatch.setenv("MLX_HOSTFILE", str(tmp_path / "hosts.json"))
    with pytest.raises(UserError, match="cannot be reached"):
        join_ranks()


def test_a_launch_of_one_is_one_process_alone(monkeypatch, tmp_path):
    (tmp_path / "hosts.json").write_text("\n")
    monkeypatch.setenv("MLX_RANK", "0")
    monkeypatch.setenv("MLX_HOSTFILE", str(tmp_path / "hosts.json"))
    assert join_ranks().count == 1


LOST = """
import os, time
import mlx.core as mx
from mlx_esm_kernels.distributed.ranks import join_ranks

ranks = join_ranks()
ranks.gather(b"all are here")
if ranks.number == 1:
    os._exit(0)

def eval_late(*arrays):
    mx.async_eval(*arrays)
    time.sleep(0.5)  # the transfer has failed before anybody waits for it

mx.eval = eval_late
ask = {
    "gather": lambda: ranks.gather(b"who?"),
    "mean": lambda: ranks.mean([mx.ones(3)]),
    "of_first": lambda: ranks.arrays_of_first([mx.ones(3)]),
}
try:
    print("got", ask[os.environ["ASKED"]](), flush=True)
except RuntimeError as error:
    print("lost", error, flush=True)
"""


@pytest.mark.parametrize(
    "asked", ["gather", *(pytest.param(x, marks=pytest.mark.slow) for x in ("mean", "of_first"))]
)
def test_what_never_came_is_not_taken_for_an_answer(tmp_path, asked):
    script = tmp_path / "lost.py"
    script.write_text(LOST)
    said = output_of(launch(2, script, env={"ASKED": asked}))
    assert "lost [ring]" in said, said
