"""Sides that run in processes of their own, so that no two libraries share threads or memory."""

from __future__ import annotations

import contextlib
import json
import subprocess
import sys
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import click
import mlx.core as mx
import numpy as np
from mlx.utils import tree_flatten

from mlx_esm_kernels.data.alphabet import ESM1B
from mlx_esm_kernels.data.packing import Batch
from mlx_esm_kernels.models.esm1 import ESM1
from mlx_esm_kernels.weights.hugging_face_writing import save_hugging_face

from .measuring import helpers

_WORKER = Path(__file__).parents[1] / "against" / "worker.py"


class Worker:
    """A process that has a side's model, and does one thing after the other."""

    def __init__(self, python: str, way: str, folder: Path, dtype: str) -> None:
        self._way, self._batches = way, 0
        try:
            self._process = subprocess.Popen(
                [python, str(_WORKER), way, str(folder), dtype],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                text=True,
            )
        except OSError as error:
            raise click.ClickException(
                f"--against {way}: {python} does not run: {error.strerror}."
            ) from error
        helpers.add(self._process.pid)
        try:
            self.about = self._answer()
        except click.ClickException:
            self.end()
            raise

    def ask(self, task: str, what: Any) -> Any:
        """Its answer to one task.

        Raises:
            click.ClickException: it has ended; it has said why on standard error.
        """
        assert self._process.stdin is not None
        with contextlib.suppress(BrokenPipeError):  # then there is no answer either
            self._process.stdin.write(json.dumps([task, what]) + "\n")
            self._process.stdin.flush()
        return self._answer()

    def _answer(self) -> Any:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            raise click.ClickException(f"--against {self._way}: its process ended, see above.")
        return json.loads(line)

    def prepare(self, batch: Batch) -> WorkerRun:
        """Give it the proteins of a padded batch, with cls and eos; what runs them."""
        self.ask("add", [row[row != ESM1B.padding_idx].tolist() for row in batch.tokens])
        self._batches += 1
        return WorkerRun(self, self._batches - 1)

    def end(self) -> None:
        """End the process."""
        helpers.discard(self._process.pid)
        self._process.kill()
        self._process.communicate()


@dataclass(frozen=True)
class WorkerRun:
    """One of a worker's batches; a call waits until it has been done."""

    worker: Worker
    number: int

    def __call__(self) -> None:
        self.worker.ask("run", self.number)

    def means(self) -> mx.array:
        """(n, C) means over the residues of its proteins."""
        return mx.array(self.worker.ask("means", self.number))


@contextlib.contextmanager
def workers(model: ESM1, pythons: dict[str, str]) -> Iterator[dict[str, Worker]]:
    """A worker for each way, with the weights of `model`; they end with the block.

    Args:
        model: of a released architecture.
        pythons: an interpreter by way; "" for the one that runs this.
    """
    with TemporaryDirectory() as name, contextlib.ExitStack() as stack:
        folder = Path(name)
        _write(folder, model, pythons)
        dtype = str(model.embed_tokens.weight.dtype).removeprefix("mlx.core.")
        found = {}
        for way, python in pythons.items():
            found[way] = Worker(python or sys.executable, way, folder, dtype)
            stack.callback(found[way].end)
        yield found


def _write(folder: Path, model: ESM1, ways: Collection[str]) -> None:
    """The weights: for esm-cpp as a folder of transformers, for others as torch_embedding's."""
    of_esm_cpp = {way for way in ways if way.startswith("esm-cpp")}
    if of_esm_cpp:
        save_hugging_face(folder / "hf", model)
    if not set(ways) - of_esm_cpp:
        return
    weights = dict(tree_flatten(model.parameters()))
    # float32 in between, since numpy has no bfloat16; nothing is rounded.
    np.savez(
        folder / "weights.npz",
        **{name: np.array(p.astype(mx.float32)) for name, p in weights.items()},
    )
    (folder / "config.json").write_text(json.dumps(model.config.to_dict()))
