"""The embed command: one file, whole or not at all, the same however often it was interrupted."""

import json
import os
import signal
import subprocess
import sys
import time

import h5py
import mlx.core as mx
import numpy as np
import pytest
from click.testing import CliRunner
from random_models import esm1b

import mlx_esm_kernels
from mlx_esm_kernels import embed, save_weights
from mlx_esm_kernels.commands import cli
from mlx_esm_kernels.commands import embed as embed_command
from mlx_esm_kernels.inference import embedding_file
from mlx_esm_kernels.inference.embedding import INCLUDES, Embedder
from mlx_esm_kernels.inference.embedding_file import Column, EmbeddingFile
from mlx_esm_kernels.system.whole_file import OutputError

PROTEINS = [("a 1", "MKTAYIAKQR"), ("b", "M"), ("a 1", "GAVLIKWDERTYPSNQHCMF"), ("é", "mkt yi")]
FASTA = "".join(f">{name}\n{sequence}\n" for name, sequence in PROTEINS)


@pytest.fixture(scope="module")
def weights(tmp_path_factory):
    path = tmp_path_factory.mktemp("weights") / "esm1b.safetensors"
    save_weights(path, esm1b())
    return path


@pytest.fixture
def place(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "p.fasta").write_text(FASTA)
    return tmp_path


def run(weights, *arguments):
    arguments = ["--weights-file", weights, *arguments]
    return CliRunner().invoke(embed_command.command, [str(argument) for argument in arguments])


def done(weights, *arguments):
    result = run(weights, *arguments)
    assert result.exit_code == 0, result.output
    return result


def failed(weights, *arguments, code=1):
    result = run(weights, *arguments)
    assert result.exit_code == code, result.output
    assert isinstance(result.exception, SystemExit), result.exception
    return " ".join(result.stderr.split())


def read(name):
    """The arrays of a file as numpy, the names as a list."""
    if name.endswith(".h5"):
        with h5py.File(name) as file:
            arrays = {key: file[key][:] for key in file if key != "names"}
            return arrays, file["names"].asstr()[:].tolist()
    loaded = np.load(name) if name.endswith(".npz") else mx.load(name)
    arrays = {key: loaded[key] for key in loaded}
    arrays = {
        key: np.array(x.astype(mx.float32) if getattr(x, "dtype", None) == mx.bfloat16 else x)
        for key, x in arrays.items()
    }
    return arrays, bytes(arrays.pop("names")).decode().split("\n")[:-1]


@pytest.mark.parametrize("suffix", ["safetensors", "npz", "h5"])
@pytest.mark.parametrize("dtype", ["float32", "float16", "bfloat16"])
def test_every_format_holds_what_the_library_gives_in_the_order_of_the_fasta(
    place, weights, suffix, dtype
):
    name = f"out.{suffix}"
    done(
        weights, "--include", *INCLUDES, "--layers", 0, -1, "p.fasta", "-o", name, "--dtype", dtype
    )
    arrays, names = read(name)
    assert names == [name for name, _ in PROTEINS]
    model = mlx_esm_kernels.load_model(weights, dtype=getattr(mx, dtype))
    found = list(embed(model, [s for _, s in PROTEINS], layers=(0, 2), include=INCLUDES))
    ends, squares = arrays["offsets"], arrays["contact_offsets"]
    assert ends.tolist() == [0, 10, 11, 31, 36]
    for i, embedding in enumerate(found):
        for layer in (0, 2):
            expected = (embedding.mean[layer], embedding.bos[layer], embedding.per_residue[layer])
            actual = (
                arrays[f"mean.{layer}"][i],
                arrays[f"bos.{layer}"][i],
                arrays[f"per-residue.{layer}"][ends[i] : ends[i + 1]],
            )
            for a, b in zip(actual, expected, strict=True):
                assert np.array_equal(a, np.array(b.astype(mx.float32)).astype(a.dtype))
        side = ends[i + 1] - ends[i]
        square = arrays["contacts"][squares[i] : squares[i + 1]].reshape(side, side)
        assert np.array_equal(square, np.array(embedding.contacts))
    assert set(os.listdir(place)) == {"p.fasta", name}


def test_half_precision_is_stored_as_such_where_the_format_has_it(place, weights):
    done(weights, "p.fasta", "-o", "a.safetensors", "--dtype", "bfloat16")
    assert mx.load("a.safetensors")["mean.2"].dtype == mx.bfloat16
    done(weights, "p.fasta", "-o", "a.npz", "--dtype", "float16")
    file = np.load("a.npz")
    assert file["mean.2"].dtype == np.float16
    assert json.loads(str(file["about"]))["layers"] == "[2]"
    done(weights, "p.fasta", "-o", "a.h5", "--dtype", "bfloat16")
    with h5py.File("a.h5") as file:
        assert file["mean.2"].dtype == np.float32
        assert file.attrs["dtype"] == "bfloat16"


def large_fasta(place):
    rng = np.random.default_rng(0)
    with (place / "large.fasta").open("w") as file:
        for number in range(400):
            residues = "".join(rng.choice(list("ACDEFGHIKLMNPQRSTVWY"), rng.integers(1, 60)))
            file.write(f">{number}\n{residues}\n")


def test_an_interrupted_run_goes_on_and_gives_the_same_file(place, weights, monkeypatch):
    large_fasta(place)
    flags = ("large.fasta", "--include", "mean", "per-residue", "--long", "window")
    monkeypatch.setattr(embedding_file, "SECONDS_BETWEEN_COMMITS", 0.0)
    whole, embedded = Embedder.run, []

    def run_until(group_number, output):
        """The run is cut off, without any cleaning up, when that group is to be embedded."""
        embedded.clear()

        def cut_off(self, proteins):
            if len(embedded) + 1 == group_number:
                raise KeyboardInterrupt
            embedded.append(len(proteins))
            return whole(self, proteins)

        monkeypatch.setattr(Embedder, "run", cut_off)
        return run(weights, *flags, "-o", output)

    assert run_until(None, "whole.safetensors").exit_code == 0
    groups = list(embedded)
    assert len(groups) > 3
    assert run_until(2, "parts.safetensors").exit_code != 0
    assert embedded == groups[:1]
    assert not (place / "parts.safetensors").exists()
    assert f"{groups[0]} of 400 proteins are there" in run_until(2, "parts.safetensors").output
    assert embedded == groups[1:2]
    assert run_until(None, "parts.safetensors").exit_code == 0
    assert embedded == groups[2:]
    assert (place / "parts.safetensors").read_bytes() == (place / "whole.safetensors").read_bytes()
    assert not (place / "parts.safetensors.partial").exists()


def test_ctrl_c_says_how_to_go_on(place, weights):
    large_fasta(place)
    many = (place / "large.fasta").read_text() * 20
    (place / "large.fasta").write_text(many)
    command = [sys.executable, "-u", "-m", "mlx_esm_kernels.embed", "large.fasta", "-o", "a.npz"]
    command += ["--weights-file", str(weights), "--long", "window"]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    try:
        while not (place / "a.npz.partial").exists():
            assert process.poll() is None
            time.sleep(0.01)
        process.send_signal(signal.SIGINT)
        output, _ = process.communicate(timeout=60)
    finally:
        process.kill()
    if process.returncode == 0:
        pytest.skip("it was done before the signal came")
    assert process.returncode == 130
    assert "the same command goes on from there (a.npz.partial)" in output
    assert not (place / "a.npz").exists()


def test_a_partial_file_of_another_run_is_not_gone_on_with(place, weights, tmp_path_factory):
    columns, about = {"x": Column(mx.float32, (2, 3))}, {"run": "1"}
    with EmbeddingFile(place / "a.npz", columns, about) as file:
        file.write("x", 0, mx.ones((1, 3)))
        file.commit(1, now=True)
    for other in ({"run": "2"}, {"run": "1", "more": ""}):
        with pytest.raises(OutputError, match=r"a.npz.partial is of another run.*--overwrite"):
            EmbeddingFile(place / "a.npz", columns, other)
    with EmbeddingFile(place / "a.npz", columns, about) as file:
        assert file.done == 1
    (place / "a.npz.partial").write_bytes(b"\xff" * 50)
    with pytest.raises(OutputError, match="is of another run"):
        EmbeddingFile(place / "a.npz", columns, about)
    with EmbeddingFile(place / "a.npz", columns, about, overwrite=True) as file:
        assert file.done == 0


@pytest.mark.parametrize("change", ["weights", "proteins", "names"])
def test_other_weights_or_proteins_are_another_run(place, weights, monkeypatch, change):
    def interrupted(self):
        self.commit(1, now=True)
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(EmbeddingFile, "finish", interrupted)
        run(weights, "p.fasta", "-o", "a.npz")
    assert (place / "a.npz.partial").exists()
    if change == "weights":
        other = esm1b()
        other.layers[1].fc2.weight = other.layers[1].fc2.weight + 1e-3
        save_weights(place / "esm1b.safetensors", other)
    swapped = FASTA.replace(
        *{"proteins": ("MKTAY", "MKTAW"), "names": ("a 1", "a 2")}.get(change, ("", ""))
    )
    (place / "p.fasta").write_text(swapped)
    weights = place / "esm1b.safetensors" if change == "weights" else weights
    assert "is of another run" in failed(weights, "p.fasta", "-o", "a.npz")
    done(weights, "p.fasta", "-o", "a.npz", "--overwrite")


def test_two_processes_do_not_write_one_file(place):
    columns = {"x": Column(mx.float32, (2, 3))}
    with (
        EmbeddingFile(place / "a.npz", columns, {}),
        pytest.raises(OutputError, match=r"a.npz.partial is being written by another process"),
    ):
        EmbeddingFile(place / "a.npz", columns, {}, overwrite=True)


def test_a_disk_without_space_is_known_before_the_work(place):
    with pytest.raises(OutputError, match=r"a.npz needs 8,000,000.0 GB of disk .* there are"):
        EmbeddingFile(place / "a.npz", {"x": Column(mx.float32, (10**12, 1000))}, {})
    assert os.listdir(place) == ["p.fasta"]


def test_what_is_there_already_is_kept_unless_it_may_be_overwritten(place, weights):
    (place / "a.npz").write_text("precious")
    assert "a.npz is there already; give another name, or --overwrite" in failed(
        weights, "p.fasta", "-o", "a.npz"
    )
    assert (place / "a.npz").read_text() == "precious"
    done(weights, "p.fasta", "-o", "a.npz", "--overwrite")
    assert len(np.load("a.npz")["mean.2"]) == 4


def test_long_proteins_are_an_error_or_seen_through_windows(place, weights):
    (place / "p.fasta").write_text(f">a\nMKT\n>titin\n{'MKTAYI' * 10}\n")
    message = failed(weights, "p.fasta", "-o", "a.npz")
    assert (
        "protein 2 ('titin') has 60 residues; the position table of this model ends at 38"
        in message
    )
    assert os.listdir(place) == ["p.fasta"]
    done(weights, "p.fasta", "-o", "a.npz", "--long", "window", "--include", "per-residue")
    assert np.load("a.npz")["per-residue.2"].shape == (63, 16)


def test_odd_residues_and_records_without_residues_are_told_of(place, weights):
    (place / "p.fasta").write_text(">a\nMK*J\n>b\n\n>c\nMKT\n")
    result = done(weights, "p.fasta", "-o", "a.npz")
    assert "2 characters are no residues and were read as <unk>" in result.stderr
    assert "1 record without residues left out, such as 'b'" in result.stderr
    arrays, names = read("a.npz")
    assert names == ["a", "c"]
    assert arrays["offsets"].tolist() == [0, 4, 7]


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        ("", "p.fasta is empty; expected FASTA"),
        (">a\n>b\n", "has records, but not one residue"),
        ("MKT\n", "p.fasta is not FASTA"),
    ],
)
def test_a_fasta_that_holds_no_protein_has_one_sentence(place, weights, content, sentence):
    (place / "p.fasta").write_text(content)
    assert sentence in failed(weights, "p.fasta", "-o", "a.npz")


@pytest.mark.parametrize(
    ("flags", "sentence"),
    [
        (("-o", "a.csv"), "a.csv must end in one of .safetensors, .npz, .h5"),
        (("-o", "nowhere/a.npz"), "there is no folder nowhere"),
        (("-o", "folder.npz"), "folder.npz cannot be written: it is a folder"),
        (("-o", "a.npz", "--layers", "7"), "layers must be from -3 to 2, at least one; got 7"),
        (("-o", "a.npz", "none.fasta"), "none.fasta does not exist"),
    ],
)
def test_flags_that_cannot_be_have_one_sentence(place, weights, flags, sentence):
    (place / "folder.npz").mkdir()
    assert sentence in failed(weights, "p.fasta", *flags)
    assert not [name for name in os.listdir(place) if name.startswith("a.")]


def test_a_missing_h5py_is_named(place, weights, monkeypatch):
    monkeypatch.setattr(embedding_file, "find_spec", lambda name: None)
    assert "a.h5 needs h5py: pip install h5py, or write" in failed(weights, "p.fasta", "-o", "a.h5")


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_a_folder_that_may_not_be_written_has_one_sentence(place, weights):
    (place / "shut").mkdir(mode=0o500)
    assert "may not be changed" in failed(weights, "p.fasta", "-o", "shut/a.npz")


def test_trouble_while_writing_is_a_sentence_and_leaves_no_file(place, weights, monkeypatch):
    def full(*arguments):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(embedding_file.os, "pwrite", full)
    message = failed(weights, "p.fasta", "-o", "a.npz")
    assert "a.npz.partial cannot be written: No space left on device" in message
    assert not (place / "a.npz").exists()


def test_weights_that_cannot_be_used_have_one_sentence(place):
    assert "none.safetensors" in failed("none.safetensors", "p.fasta", "-o", "a.npz")


def test_the_function_stays_the_function_whatever_was_imported(place, weights):
    assert cli.main.commands["embed"] is embed_command.command
    assert mlx_esm_kernels.embed is embed
    command = [sys.executable, "-m", "mlx_esm_kernels.embed", "p.fasta", "-o", "a.npz"]
    process = subprocess.run(
        [*command, "--weights-file", str(weights)], capture_output=True, text=True, check=True
    )
    assert process.stderr == ""
    assert "💾 saved to a.npz" in process.stdout
