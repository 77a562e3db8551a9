"""One file of embeddings, written front to back, that an interrupted run goes on with.

While it is made it is `OUT.partial`, a safetensors file of its final size whose metadata counts the
proteins that are in it. OUT appears when it is whole: by renaming, or, if it is .npz or .h5, by
copying the arrays piece by piece.
"""

from __future__ import annotations

import fcntl
import json
import math
import os
import shutil
import struct
import time
import zipfile
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import IO, Any

import mlx.core as mx
import numpy as np
import numpy.typing as npt

from ..models.dtypes import STORED
from ..system.console import progress
from ..system.whole_file import OutputError, output_errors, require_writable, whole_file

SUFFIXES = (".safetensors", ".npz", ".h5")
SECONDS_BETWEEN_COMMITS = 5.0  # work that a power cut may cost
_CHUNK = 1 << 22  # bytes that are copied at a time


@dataclass(frozen=True)
class Column:
    """An array of the file; it is written piece by piece along its first axis."""

    dtype: mx.Dtype
    shape: tuple[int, ...]

    @property
    def row_bytes(self) -> int:
        """Bytes of one place of the first axis."""
        return math.prod(self.shape[1:]) * self.dtype.size

    @property
    def num_bytes(self) -> int:
        return self.shape[0] * self.row_bytes


class _Stored:
    """An array of the partial file, read a few megabytes at a time.

    Attributes:
        shape, dtype: of the array; bfloat16, which numpy has not, is read as float32.
    """

    def __init__(
        self, file: int, offset: int, column: Column, on_read: Callable[[int], object]
    ) -> None:
        self._file, self._offset, self._column = file, offset, column
        self._on_read = on_read  # called with bytes
        self.shape = column.shape
        self._bits = np.dtype(STORED[column.dtype].bits)
        self._widen = column.dtype == mx.bfloat16
        self.dtype = np.dtype(np.float32) if self._widen else self._bits

    def chunks(self) -> Iterator[tuple[int, npt.NDArray[Any]]]:
        """Pieces along the first axis, each with its place there."""
        row_bytes = self._column.row_bytes
        step = max(1, _CHUNK // row_bytes)
        for first in range(0, self.shape[0], step):
            count = min(step, self.shape[0] - first)
            data = os.pread(self._file, count * row_bytes, self._offset + first * row_bytes)
            self._on_read(len(data))
            rows = np.frombuffer(data, self._bits).reshape(count, *self.shape[1:])
            yield first, (rows.astype(np.uint32) << 16).view(np.float32) if self._widen else rows


_Converter = Callable[[Path, Mapping[str, _Stored], Mapping[str, str]], None]


def require_embedding_output(path: Path, overwrite: bool) -> _Converter | None:
    """Refuse an OUT that cannot be written; what makes it of arrays, None for .safetensors.

    Raises:
        OutputError: there is no such format, h5py is missing, its folder cannot be written, or it
            is there already and is not to be overwritten.
    """
    if path.suffix not in SUFFIXES:
        raise OutputError(f"{path} must end in one of {', '.join(SUFFIXES)}.")
    if path.suffix == ".h5" and find_spec("h5py") is None:
        raise OutputError(
            f"{path} needs h5py: pip install h5py, or write .safetensors or .npz instead."
        )
    require_writable(path)
    if path.exists() and not overwrite:
        raise OutputError(f"{path} is there already; give another name, or --overwrite.")
    return {".safetensors": None, ".npz": _write_npz, ".h5": _write_h5}[path.suffix]


class EmbeddingFile:
    """The arrays of OUT, while they are made; a context manager.

    Args:
        path: OUT; its suffix, one of `SUFFIXES`, is its format.
        columns: the arrays by name.
        about: what the run is, as strings: written to the file, and compared with those of a
            partial file before that is gone on with.
        overwrite: begin anew, whatever is there. Otherwise a whole OUT, or a partial file of
            another run, is an error.

    Attributes:
        done: proteins that are in the file.

    Raises:
        OutputError: it cannot be written, is there already, or another process is writing it.
    """

    def __init__(
        self,
        path: Path,
        columns: Mapping[str, Column],
        about: Mapping[str, str],
        *,
        overwrite: bool = False,
    ) -> None:
        self.path, self.columns, self.about = path, dict(columns), dict(about)
        self.partial = path.with_name(f"{path.name}.partial")
        self._convert = require_embedding_output(path, overwrite)
        self._committed = time.monotonic()
        header, self._offsets, size = _header(self.columns, self.about, done=0)
        with output_errors(self.partial):
            self._file = os.open(self.partial, os.O_RDWR | os.O_CREAT, 0o666)
        try:
            self._lock()
            self.done = 0 if overwrite else self._progress(header)
            if not self.done:
                self._require_space(size)
                with output_errors(self.partial):
                    os.ftruncate(self._file, 0)
                    os.ftruncate(self._file, size)
                    _write_all(self._file, header, 0)
        except BaseException:
            if not os.fstat(self._file).st_size:
                self.partial.unlink()
            os.close(self._file)
            raise

    def __enter__(self) -> EmbeddingFile:
        return self

    def __exit__(self, *exception: object) -> None:
        os.close(self._file)

    def write(self, name: str, first: int, rows: npt.NDArray[Any] | mx.array) -> None:
        """Put `rows`, of the column's dtype, at index `first` of the column's first axis."""
        if isinstance(rows, mx.array):
            bits = rows.view(mx.uint16) if rows.dtype == mx.bfloat16 else rows
            rows = np.array(bits)
        self.write_bytes(name, first, rows.tobytes())

    def write_bytes(self, name: str, first: int, content: bytes) -> None:
        """As `write`, of rows as they lie in memory."""
        with output_errors(self.partial):
            at = self._offsets[name] + first * self.columns[name].row_bytes
            _write_all(self._file, content, at)

    def commit(self, done: int, *, now: bool = False) -> None:
        """Note that the first `done` proteins are written; on the disk every few seconds."""
        self.done = done
        if not now and time.monotonic() - self._committed < SECONDS_BETWEEN_COMMITS:
            return
        header, _, _ = _header(self.columns, self.about, done)
        with output_errors(self.partial):
            os.fsync(self._file)  # the proteins first, then their number
            _write_all(self._file, header, 0)
            os.fsync(self._file)
        self._committed = time.monotonic()

    def finish(self) -> None:
        """Make OUT of the partial file, which must hold every protein."""
        self.commit(self.done, now=True)
        with output_errors(self.path):
            if self._convert is None:
                os.replace(self.partial, self.path)
                return
            total = sum(column.num_bytes for column in self.columns.values())
            with (
                progress(total=total, desc=f"💾 writing {self.path.name}", unit="B") as bar,
                whole_file(self.path) as half_done,
            ):
                self._convert(
                    half_done,
                    {
                        name: _Stored(self._file, self._offsets[name], column, bar.update)
                        for name, column in self.columns.items()
                    },
                    self.about,
                )
            self.partial.unlink()

    def _lock(self) -> None:
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            raise OutputError(f"{self.partial} is being written by another process.") from None

    def _progress(self, header: bytes) -> int:
        """How many proteins a partial file of the very same run holds; 0: there is none."""
        with output_errors(self.partial):
            found = os.pread(self._file, len(header), 0)
        if not found.strip(b"\0"):
            return 0
        try:
            length = struct.unpack("<Q", found[:8])[0]
            done = int(json.loads(found[8 : 8 + length])["__metadata__"]["done"])
            same = _header(self.columns, self.about, done)[0] == found
        except (ValueError, KeyError, TypeError, struct.error):
            same = False
        if not same:
            raise OutputError(
                f"{self.partial} is of another run (other proteins, weights or options); remove "
                f"it, or give --overwrite."
            )
        return done

    def _require_space(self, size: int) -> None:
        needed = size if self._convert is None else 2 * size
        free = shutil.disk_usage(self.path.parent).free + os.fstat(self._file).st_blocks * 512
        if needed > free:
            raise OutputError(
                f"{self.path} needs {needed / 1e9:,.1f} GB of disk while it is made; there are "
                f"{free / 1e9:,.1f} GB."
            )


def _header(
    columns: Mapping[str, Column], about: Mapping[str, str], done: int
) -> tuple[bytes, dict[str, int], int]:
    """The head of a safetensors file, where each array begins, and the size of the file.

    The head is as long for any `done`. Format: https://github.com/huggingface/safetensors#format
    """
    entries: dict[str, Any] = {"__metadata__": {**about, "done": f"{done:015d}"}}
    at, begins = 0, {}
    # Wide numbers first, so that every array begins at a multiple of its own size.
    for name in sorted(columns, key=lambda name: -columns[name].dtype.size):
        column = columns[name]
        end = at + column.num_bytes
        entries[name] = {
            "dtype": STORED[column.dtype].safetensors,
            "shape": list(column.shape),
            "data_offsets": [at, end],
        }
        begins[name] = at
        at = end
    text = json.dumps(entries).encode()
    text += b" " * (-len(text) % 8)
    start = 8 + len(text)
    offsets = {name: start + begin for name, begin in begins.items()}
    return struct.pack("<Q", len(text)) + text, offsets, start + at


def _write_all(file: int, data: bytes, offset: int) -> None:
    """pwrite, which may write less than it was given, until all is written."""
    view = memoryview(data)
    while view:
        written = os.pwrite(file, view, offset)
        view, offset = view[written:], offset + written


def _write_npz(path: Path, arrays: Mapping[str, _Stored], about: Mapping[str, str]) -> None:
    """Every array as an uncompressed member, as `np.savez` has it, and `about` as json text."""
    with zipfile.ZipFile(path, "w", allowZip64=True) as file:

        def member(name: str) -> IO[bytes]:
            # ZipInfo's own date, not today's: the same run gives the same file.
            return file.open(zipfile.ZipInfo(f"{name}.npy"), "w", force_zip64=True)

        with member("about") as out:
            np.lib.format.write_array(out, np.array(json.dumps(dict(about))))
        for name, array in arrays.items():
            head = {
                "descr": np.lib.format.dtype_to_descr(array.dtype),
                "fortran_order": False,
                "shape": array.shape,
            }
            with member(name) as out:
                np.lib.format.write_array_header_2_0(out, head)
                for _, rows in array.chunks():
                    out.write(rows.tobytes())


def _write_h5(path: Path, arrays: Mapping[str, _Stored], about: Mapping[str, str]) -> None:
    """Every array as a dataset, the names as strings, and `about` as attributes."""
    import h5py

    with h5py.File(path, "w") as file:
        file.attrs.update(about)
        for name, array in arrays.items():
            if name == "names":
                text = b"".join(rows.tobytes() for _, rows in array.chunks())
                lines = text.decode().split("\n")[:-1]
                file.create_dataset(name, data=lines, dtype=h5py.string_dtype())
                continue
            dataset = file.create_dataset(name, array.shape, array.dtype)
            for first, rows in array.chunks():
                dataset[first : first + len(rows)] = rows
