"""Encoded proteins in the cache that are no longer what was written: noticed, and made anew."""

import json
import os
import shutil
import time
import warnings

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mlx_esm_kernels.data import proteins as data
from mlx_esm_kernels.data import stored_table
from mlx_esm_kernels.data.alphabet import ESM1B
from mlx_esm_kernels.data.proteins import DamagedCacheWarning, load_proteins
from mlx_esm_kernels.data.stored_table import TableDamaged, open_table, write_about, write_table
from mlx_esm_kernels.data.token_table import COLUMNS
from mlx_esm_kernels.system.errors import DataError

STORY = b">one first protein\nMKTAYIAKQR\n>two\nGGSGG\n"
SETTLED_S = 0.05  # file systems keep times in steps


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("MLX_ESM_KERNELS_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.fixture
def digested(monkeypatch):
    """How often the columns of a table were read to be sure of it."""
    seen = []
    progress = stored_table.progress

    def noting(*arguments, **options):
        seen.append(options["desc"])
        return progress(*arguments, **options)

    monkeypatch.setattr(stored_table, "progress", noting)
    return seen


def flipped(content):
    middle = len(content) // 2
    return content[:middle] + bytes([content[middle] ^ 1]) + content[middle + 1 :]


HARMS = {
    "shorten": lambda content: content[:-1],
    "lengthen": lambda content: content + content[-8:],
    "empty": lambda content: b"",
    "flip": flipped,
    "of zeros": lambda content: bytes(len(content)),
}


def is_as_written(proteins):
    assert [ESM1B.decode(protein) for protein in proteins] == ["MKTAYIAKQR", "GGSGG"]
    assert list(proteins.names) == ["one first protein", "two"]
    assert proteins.lengths.tolist() == [10, 5]


@pytest.mark.parametrize("column", [*COLUMNS, "about.json"])
@pytest.mark.parametrize("harm", ["remove", *HARMS])
def test_a_damaged_table_is_made_anew_with_a_warning(write, cache, column, harm):
    path = write(STORY)
    load_proteins(path)
    time.sleep(SETTLED_S)
    (file,) = cache.glob(f"tokens/*/{column}")
    if harm == "remove":
        file.unlink()
    else:
        file.write_bytes(HARMS[harm](file.read_bytes()))
    with pytest.warns(DamagedCacheWarning) as caught:
        is_as_written(load_proteins(path))
    (said,) = [str(warning.message) for warning in caught]
    assert said.startswith(f"what the cache has of {path} is damaged ({column} ")
    assert said.endswith("made anew; if that happens again, look after the disk.")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        is_as_written(load_proteins(path))
    assert [found.name for found in (cache / "tokens").glob(".partial-*")] == []


@pytest.mark.parametrize("harm", ["shorten", "empty", "flip", "of zeros"])
def test_what_is_damaged_while_it_is_in_use_is_an_error_and_made_anew(write, cache, harm):
    path = write(STORY)
    proteins = load_proteins(path)
    time.sleep(SETTLED_S)
    (file,) = cache.glob("tokens/*/tokens")
    file.write_bytes(HARMS[harm](file.read_bytes()))
    with pytest.raises(DataError, match=r"in the cache, is damaged: .* Run it again: it is made"):
        list(proteins)
    with pytest.warns(DamagedCacheWarning):
        is_as_written(load_proteins(path))


@pytest.mark.parametrize("distant", [False, True])
def test_damage_that_no_time_tells_of_is_seen_when_the_protein_is_read(
    write, cache, monkeypatch, distant
):
    """A disk that gives other bits than were written leaves every time as it was."""
    monkeypatch.setattr(data, "_MOST_MAPPED", 0 if distant else 16)
    path = write(STORY)
    load_proteins(path)
    (file,) = cache.glob("tokens/*/tokens")
    before = file.stat()
    with file.open("r+b") as opened:
        opened.seek(12)  # of the second protein
        opened.write(b"\x05")
    os.utime(file, ns=(before.st_atime_ns, before.st_mtime_ns))
    monkeypatch.setattr(stored_table, "_stamps", lambda _: stamps)
    stamps = json.loads(file.with_name("checked.json").read_text())
    proteins = load_proteins(path)
    assert ESM1B.decode(proteins[0]) == "MKTAYIAKQR"
    with pytest.raises(DataError, match="protein number 2 is not as it was written"):
        proteins[1]
    with pytest.warns(DamagedCacheWarning, match="tokens has other bytes than were written"):
        is_as_written(load_proteins(path))


def test_a_table_that_was_not_written_to_is_taken_on_trust(write, digested):
    path = write(STORY)
    load_proteins(path)
    load_proteins(path)
    assert digested == []


def test_a_copied_cache_is_looked_at_once(write, cache, digested):
    path = write(STORY)
    load_proteins(path)
    shutil.copytree(cache, cache.with_name("copy"))
    shutil.rmtree(cache)
    cache.with_name("copy").rename(cache)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for _ in range(2):
            is_as_written(load_proteins(path))
    assert digested == [f"🔍 checking what is encoded of {path}"]


def test_the_table_of_another_file_is_not_taken_for_this_one(write, cache):
    path, other = write(STORY), write(b">a\nWWWWW\n", "other")
    load_proteins(other)
    (folder,) = (cache / "tokens").glob("*/about.json")
    foreign = folder.parent
    load_proteins(path)
    (own,) = [f.parent for f in (cache / "tokens").glob("*/about.json") if f.parent != foreign]
    shutil.rmtree(own)
    shutil.copytree(foreign, own)
    with pytest.warns(DamagedCacheWarning, match="it is that of another file"):
        is_as_written(load_proteins(path))


@given(st.sampled_from(sorted(COLUMNS)), st.data())
def test_no_change_of_one_bit_is_overlooked(tmp_path_factory, column, draw):
    folder = tmp_path_factory.mktemp("table")
    records = [("a", ESM1B.encode("MKT")), ("b", ESM1B.encode("W"))]
    write_about(folder, {"key": folder.name, "digests": write_table(records, folder)})
    content = bytearray((folder / column).read_bytes())
    place = draw.draw(st.integers(0, 8 * len(content) - 1))
    content[place // 8] ^= 1 << place % 8
    (folder / column).write_bytes(content)
    (folder / "checked.json").unlink()
    with pytest.raises(TableDamaged, match=f"{column} has other bytes than were written"):
        open_table(folder, "a file")


def test_a_cache_that_may_only_be_read_is_no_obstacle(write, cache, monkeypatch):
    path = write(STORY)
    load_proteins(path)
    (checked,) = cache.glob("tokens/*/checked.json")
    checked.unlink()

    def refuse(_):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(stored_table, "whole_file", refuse)
    is_as_written(load_proteins(path))
    assert not checked.exists()


def test_hashes_and_lengths_of_many_files_are_those_of_each(write, monkeypatch):
    paths = [write(b">a\nMKT\n>b\nWW\n", "a"), write(b">c\nGGSG\n", "c")]
    near = load_proteins(paths)
    monkeypatch.setattr(data, "_MOST_MAPPED", 1)
    distant = load_proteins(paths)
    for proteins in (near, distant):
        assert proteins.lengths.tolist() == [3, 2, 4]
        assert np.concatenate(list(proteins.hash_blocks())).tolist() == proteins.hashes.tolist()
        assert [ESM1B.decode(protein) for protein in proteins] == ["MKT", "WW", "GGSG"]
        assert list(proteins.names) == ["a", "b", "c"]
    assert near.hashes.tolist() == distant.hashes.tolist()
