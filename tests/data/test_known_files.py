"""A file that has not changed is not read again; one that may have changed is."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from mlx_esm_kernels.data import known_files, proteins
from mlx_esm_kernels.data.alphabet import ESM1_ALPHABET, ESM1B
from mlx_esm_kernels.data.proteins import load_proteins
from mlx_esm_kernels.system.cache import cache_folder


@pytest.fixture
def read(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """What was read to know its content."""
    seen: list[str] = []
    progress = proteins.progress

    def noting(*arguments: object, desc: str = "", **options: object) -> object:
        if desc.startswith("📥 checking"):
            seen.append(desc.rsplit("/", 1)[-1])
        return progress(*arguments, desc=desc, **options)  # type: ignore[arg-type]

    monkeypatch.setattr(proteins, "progress", noting)
    return seen


@pytest.fixture
def settled(monkeypatch: pytest.MonkeyPatch) -> None:
    """As if every file had been written long ago."""
    monkeypatch.setattr(known_files, "SETTLED_S", 0.0)


def fasta(path: Path, residues: str) -> Path:
    path.write_text(f">a\n{residues}\n>b\nMKV\n")
    return path


@pytest.mark.usefixtures("settled")
def test_a_file_is_read_once_and_known_by_another_name(tmp_path: Path, read: list[str]) -> None:
    file = fasta(tmp_path / "a.fasta", "MKT")
    first = load_proteins(file)
    second = load_proteins(file)
    moved = load_proteins(file.rename(tmp_path / "b.fasta"))
    assert read == ["a.fasta"] or read == ["a.fasta", "b.fasta"], "a rename may change its times"
    assert (first[0] == second[0]).all()
    assert (first[0] == moved[0]).all()


@pytest.mark.usefixtures("settled")
@pytest.mark.parametrize("keeps_time", [False, True])
def test_a_changed_file_is_read_again(tmp_path: Path, read: list[str], keeps_time: bool) -> None:
    """Of the same size, and even where a tool has put its old time back."""
    file = fasta(tmp_path / "a.fasta", "MKT")
    times = file.stat()
    load_proteins(file)
    fasta(file, "MKW")
    if keeps_time:
        os.utime(file, ns=(times.st_atime_ns, times.st_mtime_ns))
    assert ESM1B.decode(load_proteins(file)[0]) == "MKW"
    assert len(read) == 2


def test_a_file_that_was_just_written_is_not_taken_on_trust(
    tmp_path: Path, read: list[str]
) -> None:
    file = fasta(tmp_path / "a.fasta", "MKT")
    load_proteins(file)
    load_proteins(file)
    assert len(read) == 2


@pytest.mark.usefixtures("settled")
def test_another_alphabet_is_another_content(tmp_path: Path, read: list[str]) -> None:
    file = fasta(tmp_path / "a.fasta", "MKT")
    load_proteins(file, ESM1B)
    load_proteins(file, ESM1_ALPHABET)
    assert len(read) == 2


@pytest.mark.usefixtures("settled")
@pytest.mark.parametrize("spoilt", [b"", b"../../else", b"\xff\xfe"])
def test_what_is_kept_is_believed_only_where_it_is_a_digest(
    tmp_path: Path, read: list[str], spoilt: bytes
) -> None:
    file = fasta(tmp_path / "a.fasta", "MKT")
    load_proteins(file)
    (kept,) = (cache_folder() / "tokens" / known_files.FOLDER).iterdir()
    kept.write_bytes(spoilt)
    assert ESM1B.decode(load_proteins(file)[0]) == "MKT"
    assert len(read) == 2


@pytest.mark.usefixtures("settled")
def test_without_its_tokens_a_known_file_is_encoded_anew(tmp_path: Path, read: list[str]) -> None:
    file = fasta(tmp_path / "a.fasta", "MKT")
    load_proteins(file)
    for table in (cache_folder() / "tokens").iterdir():
        if table.name != known_files.FOLDER:
            for part in table.iterdir():
                part.unlink()
            table.rmdir()
    assert ESM1B.decode(load_proteins(file)[0]) == "MKT"
    assert len(read) == 1
