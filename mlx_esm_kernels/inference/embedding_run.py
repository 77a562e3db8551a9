"""A run that embeds many proteins into one file: its arrays, what makes it the same run, its work.

A run that was interrupted goes on where its file ends.
"""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Iterator
from typing import Any

import mlx.core as mx
import numpy as np
import numpy.typing as npt

from ..data.proteins import Proteins
from ..distributed.pulse import Pulse
from ..distributed.ranks import Ranks
from ..models.dtypes import STORED
from ..models.fingerprint import fingerprint
from ..system.console import duration, progress, say
from .embedding import LONG_ADVICE, Embedder
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
        self._names = _names(proteins)
        self._offsets = _offsets(proteins.lengths)
        self._contact_offsets = _offsets(proteins.lengths.astype(np.int64) ** 2)
        self.columns = self._plan_columns()
        self.about = self._identity(weights_name)

    def fill(self, file: EmbeddingFile | None, pulse: Pulse, ranks: Ranks) -> bool:
        """Embed what is not in the file yet; False where a signal came between.

        Args:
            file: takes the embeddings; None: another process has it.
            pulse: whether a signal has come.
            ranks: the processes that share the proteins out, all of which are here.

        Raises:
            UserError: the model gives NaN or infinity.
            OutputError: the file cannot be written.
        """
        proteins, offsets = self._proteins, self._offsets
        done = int(ranks.numbers(0 if file is None else file.done)[0])
        if done:
            say(f"⏩ {done:,} of {len(proteins):,} proteins are there already")
        elif file is not None:
            self._write_tables(file)
        before, total = int(offsets[done]), int(offsets[-1])
        started = time.monotonic()
        with progress(total=total, initial=before, desc="🧬 embedding", unit="residue") as bar:
            places = range(done, len(proteins))
            lengths = proteins.lengths
            groups = self._embedder.groups(places, lambda place: int(lengths[place]))
            for group, content in ranks.in_turns(groups, self._embed):
                end = group[-1] + 1
                pulse.beat()
                if file is not None:
                    self._write(file, group, content)
                    file.commit(end, now=pulse.received is not None)
                bar.update(int(offsets[end] - offsets[group[0]]))
                if pulse.received is not None and end < len(proteins):
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

    def _embed(self, group: list[int]) -> bytes:
        """The rows of the columns of some proteins, in the order of `_pieces`."""
        found = self._embedder.run([self._proteins[place] for place in group])
        contents = []
        for place, embedding in zip(group, found, strict=True):
            arrays: dict[str, mx.array | None] = {"contacts": embedding.contacts}
            arrays |= {f"mean.{layer}": array for layer, array in embedding.mean.items()}
            arrays |= {f"bos.{layer}": array for layer, array in embedding.bos.items()}
            arrays |= {f"per-residue.{n}": array for n, array in embedding.per_residue.items()}
            for name, _, _ in self._pieces(place):
                array = arrays[name]
                assert array is not None
                contents.append(np.ascontiguousarray(array.view(mx.uint8)).data)
        return b"".join(contents)

    def _write(self, file: EmbeddingFile, group: list[int], content: bytes) -> None:
        """Write what `_embed` gave."""
        at = 0
        for place in group:
            for name, first, rows in self._pieces(place):
                end = at + rows * self.columns[name].row_bytes
                file.write_bytes(name, first, content[at:end])
                at = end

    def _pieces(self, place: int) -> Iterator[tuple[str, int, int]]:
        """The columns in which a protein has rows: (name, first row, how many)."""
        length = int(self._proteins.lengths[place])
        starts = {"mean": (place, 1), "bos": (place, 1)}
        starts["per-residue"] = (int(self._offsets[place]), length)
        starts["contacts"] = (int(self._contact_offsets[place]), length**2)
        for name in self.columns:
            what = name.partition(".")[0]
            if what in starts:
                yield name, *starts[what]


def _names(proteins: Proteins) -> bytes:
    """All headers, one a line."""
    names = progress(proteins.names, desc="🧬 reading names", unit="protein")
    return "".join(f"{name}\n" for name in names).encode()


def _offsets(sizes: npt.NDArray[np.integer[Any]]) -> npt.NDArray[np.int64]:
    return np.concatenate([[0], np.cumsum(sizes)]).astype(np.int64)
