"""One side in a process of its own, told on standard input what to do, a line of JSON each.

python worker.py WAY FOLDER [DTYPE]: esm-cpp and esm-cpp-int8 need nothing of this project, since
their package wants another numpy; the others are `torch_embedding`'s, in DTYPE or, where WAY ends
with -bfloat16, in that. FOLDER has what `harness.processes` has put there.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import numpy as np

LOW = "-bfloat16"


class EsmCpp:
    """esm-cpp's model, which packs proteins as ours does; it gives logits, and so computes them."""

    def __init__(self, folder: Path, int8: bool) -> None:
        import esm_cpp

        self.model = esm_cpp.Model.load_from_safetensors(str(folder / "hf" / "model.safetensors"))
        self.batches: list[list[np.ndarray]] = []
        if int8:
            self.model.quantize_weights()
        self.about = f"esm-cpp {esm_cpp.__version__}, {esm_cpp.current_isa()}"

    def add(self, proteins: list[list[int]]) -> None:
        self.batches.append([np.array(ids, np.int32) for ids in proteins])

    def run(self, number: int) -> None:
        self.model.forward_scheduled(self.batches[number])

    def means(self, number: int) -> np.ndarray:
        found = [self.model.forward_with_hidden_states(ids)[1][-1] for ids in self.batches[number]]
        return np.stack([vectors[1:-1].mean(0) for vectors in found])


class Torch:
    """fair-esm's or transformers' model, on padded batches."""

    def __init__(self, way: str, folder: Path, dtype: str) -> None:
        from against.torch_embedding import torch_embedder

        with np.load(folder / "weights.npz") as arrays:
            self._embed = torch_embedder(
                way.removesuffix(LOW),
                json.loads((folder / "config.json").read_text()),
                dict(arrays),
                "bfloat16" if way.endswith(LOW) else dtype,
            )
        self._runs: list[Any] = []
        self.about = way

    def add(self, proteins: list[list[int]]) -> None:
        self._runs.append(self._embed(proteins))

    def run(self, number: int) -> None:
        self._runs[number]()

    def means(self, number: int) -> np.ndarray:
        found: np.ndarray = self._runs[number]()
        return found


def main(way: str, folder: Path, dtype: str = "float32") -> None:
    """Answer one line for each line, until the other end is closed."""
    said = sys.stdout
    sys.stdout = sys.stderr  # what libraries print is no answer
    if way.startswith("esm-cpp"):
        side: EsmCpp | Torch = EsmCpp(folder, int8=way.endswith("int8"))
    else:
        sys.path.insert(0, str(Path(__file__).parents[1]))
        side = Torch(way, folder, dtype)
    print(json.dumps(side.about), file=said, flush=True)
    for line in sys.stdin:
        task, what = json.loads(line)
        answer: Any = None
        if task == "add":
            side.add(what)
        elif task == "run":
            side.run(what)
        else:
            answer = side.means(what).tolist()
        print(json.dumps(answer), file=said, flush=True)


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]), *sys.argv[3:])
