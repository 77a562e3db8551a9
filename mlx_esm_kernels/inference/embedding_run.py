"""A run that embeds many proteins into one file: its arrays, what makes it the same run, its work.

A run that was interrupted goes on where its file ends.
"""

from __future__ import annotations

import hashlib
import json
import time

import mlx.core as mx
import numpy as np
import numpy.typing as npt
from mlx.utils import tree_flatten

from ..data.proteins import Proteins
from ..models.dtypes import STORED
from ..models.esm1 import ESM1
from ..system.console import duration, progress, say
from ..system.interrupt import StopOnSignal
from .embedding import LONG_ADVICE, Embedder, Embedding
from .embedding_file import Column, EmbeddingFile
from .requirements import require_lengths


class EmbeddingRun:
    """The embeddings of some proteins, as they are to be in a file.

    Args:
        embedder: the model and what is wanted of it.
        proteins: all of them have residues.
        weights_name: what the file says of where the model came from.

    Attributes:
        columns: the arrays of the file, by name.
        about: what the run is, for the reader of the file, and to know the same run again.

    Raises:
        UserError: a protein is too long for the model.
    """

    def __init__(self, embedder: Embedder, proteins: Proteins, *, weights_name: str) -> None:
        if embedder.long == "error":
            require_lengths(embedder.model, proteins, LONG_ADVICE)
        self._embedder, self._proteins = embedder, proteins
        self._names = "".join(f"{name}\n" for name in proteins.names).encode()
        self._offsets = _offsets(proteins.lengths)
        self._contact_offsets = _offsets(proteins.lengths**2)
        self.columns = self._plan_columns()
        self.about = self._identity(weights_name)

    def fill(self, file: EmbeddingFile, stop: StopOnSignal) -> bool:
        """Embed what is not in the file yet; False where a signal came between.

        Raises:
            UserError: the model gives NaN or infinity.
            OutputError: the file cannot be written.
        """
        proteins, offsets = self._proteins, self._offsets
        if file.done:
            say(f"⏩ {file.done:,} of {len(proteins):,} proteins are there already")
        else:
            self._write_tables(file)
        before, total = int(offsets[file.done]), int(offsets[-1])
        started = time.monotonic()
        with progress(total=total, initial=before, desc="🧬 embedding", unit="residue") as bar:
            places = range(file.done, len(proteins))
            lengths = proteins.lengths
            for group in self._embedder.groups(places, lambda place: int(lengths[place])):
                found = self._embedder.run([proteins[place] for place in group])
                for place, embedding in zip(group, found, strict=True):
                    self._write(file, place, embedding)
                end = group[-1] + 1
                file.commit(end, now=stop.received is not None)
                bar.update(int(offsets[end] - offsets[group[0]]))
                if stop.received is not None and end < len(proteins):
                    return False
        seconds = time.monotonic() - started
        if total > before:
            say(
                f"🌳 {len(proteins):,} proteins, {total:,} residues, "
                f"{(total - before) / seconds:,.0f} residues/s in {duration(seconds)}"
            )
        return True

    def _plan_columns(self) -> dict[str, Column]:
        count, model = len(self._proteins), self._embedder.model
        width, dtype = model.config.embed_dim, model.embed_tokens.weight.dtype
        columns = {
            "names": Column(mx.uint8, (len(self._names),)),
            "offsets": Column(mx.int64, (count + 1,)),
        }
        rows = {"mean": count, "bos": count, "per-residue": int(self._offsets[-1])}
        for what in sorted(self._embedder.include - {"contacts"}):
            for layer in self._embedder.layers:
                columns[f"{what}.{layer}"] = Column(dtype, (rows[what], width))
        if "contacts" in self._embedder.include:
            columns["contacts"] = Column(mx.float32, (int(self._contact_offsets[-1]),))
            columns["contact_offsets"] = Column(mx.int64, (count + 1,))
        return columns

    def _identity(self, weights_name: str) -> dict[str, str]:
        embedder = self._embedder
        content = self._proteins.hashes.tobytes() + self._names
        return {
            "writer": "mlx-esm-kernels embed, layout 1",
            "model": weights_name,
            "weights": fingerprint(embedder.model),
            "proteins": hashlib.blake2b(content, digest_size=16).hexdigest(),
            "layers": json.dumps(embedder.layers),
            "include": json.dumps(sorted(embedder.include)),
            "long": embedder.long,
            "dtype": STORED[embedder.model.embed_tokens.weight.dtype].name,
            "tokens_per_pass": str(embedder.tokens_per_pass),
        }

    def _write_tables(self, file: EmbeddingFile) -> None:
        """The arrays that are known before the model is run."""
        file.write("names", 0, np.frombuffer(self._names, np.uint8))
        file.write("offsets", 0, self._offsets)
        if "contacts" in self.columns:
            file.write("contact_offsets", 0, self._contact_offsets)

    def _write(self, file: EmbeddingFile, place: int, embedding: Embedding) -> None:
        for layer, vector in embedding.mean.items():
            file.write(f"mean.{layer}", place, vector)
        for layer, vector in embedding.bos.items():
            file.write(f"bos.{layer}", place, vector)
        for layer, rows in embedding.per_residue.items():
            file.write(f"per-residue.{layer}", int(self._offsets[place]), rows)
        if embedding.contacts is not None:
            file.write("contacts", int(self._contact_offsets[place]), embedding.contacts)


def fingerprint(model: ESM1) -> str:
    """A hash of the model's config, and of some hundred numbers of each of its parameters."""
    digest = hashlib.blake2b(json.dumps(model.config.to_dict()).encode(), digest_size=16)
    for name, parameter in sorted(dict(tree_flatten(model.parameters())).items()):
        flat = parameter.reshape(-1)
        some = flat[:: max(1, flat.size // 256)].astype(mx.float32)
        digest.update(name.encode() + np.array(some).tobytes())
    return digest.hexdigest()


def _offsets(sizes: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
    return np.concatenate([[0], np.cumsum(sizes)]).astype(np.int64)
