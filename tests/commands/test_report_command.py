"""The page of a run from the outside: what it shows, and what it says of what has gone."""

import json
import shutil
from html import escape

import numpy as np
import pytest
from click.testing import CliRunner
from html_reading import Reader
from random_models import esm1b

from mlx_esm_kernels.commands import report, train
from mlx_esm_kernels.data import download
from mlx_esm_kernels.models.esm1 import ESM1Config
from mlx_esm_kernels.weights import save_weights

TINY = ESM1Config(num_layers=1, embed_dim=32, ffn_dim=64, num_heads=2, max_positions=64)
LETTERS = list("ACDEFGHIKLMNPQRSTVWY")


def fasta(count, seed=0):
    drawn = np.random.default_rng(seed).choice(LETTERS, (count, 25))
    return "".join(f">p{i}\n{''.join(row)}\n" for i, row in enumerate(drawn))


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """The folder of a run of three steps, and beside it its proteins."""
    place = tmp_path_factory.mktemp("trained")
    (place / "proteins.fasta").write_text(fasta(40))
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(train.PRESETS, "small", TINY)
        patch.setenv("MLX_ESM_KERNELS_CACHE", str(place / "cache"))
        arguments = ["--data", place / "proteins.fasta", "--weights-dir", place / "run"]
        arguments += ["--num-iters", 3, "--tokens-per-batch", 128]
        result = CliRunner().invoke(train.command, [str(one) for one in arguments])
    assert result.exit_code == 0, result.output
    return place


@pytest.fixture
def run(trained, tmp_path):
    """A copy of the run, to do something to."""
    shutil.copytree(trained / "run", tmp_path / "run")
    return tmp_path / "run"


def invoke(run, output="report.html"):
    return CliRunner().invoke(report.command, [str(run), "-o", str(run.parent / output)])


def page_of(run):
    """The page of a run, read; making it is no error."""
    result = invoke(run)
    assert result.exit_code == 0, result.output
    return Reader((run.parent / "report.html").read_text("utf-8"))


def change(run, old, new):
    config = run / "config.toml"
    assert old in config.read_text()
    config.write_text(config.read_text().replace(old, new))


def test_the_page_has_all_that_is_known_of_a_run(run):
    page = page_of(run)
    for title in ("Held-out perplexity", "Loss on masked", "Learning rate", "Speed", "waiting"):
        assert title in page.text
    assert page.count("figure", kind="chart") == 5
    rows = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    assert f"held-out perplexity {rows[-1]['valid_perplexity']:.2f}" in page.text
    assert f"residue frequencies: {rows[-1]['unigram_perplexity']:.4g}" in page.text
    assert "neighbours: " in page.text
    assert page.count("section", kind="sample") == 4
    assert page.text.count("62 residues, pseudo-perplexity") == 4  # as many as it has positions for
    assert "This model has no contact regression" in page.text
    assert "tokens_per_batch = 128" in page.text
    assert f"mlx-esm train --config {run / 'config.toml'}" in page.text
    cells = [has["title"] for tag, has in page.elements if tag == "td" and "title" in has]
    assert len(cells) == 400
    shares = {}
    for told in cells:
        if told != "not known":
            shares.setdefault(told[0], []).append(float(told.split()[-1].rstrip("%")))
    assert shares
    # Of the rest the model thinks that they are other tokens.
    assert all(50 < sum(row) < 101 for row in shares.values())


def test_it_asks_for_nothing_and_runs_nothing(run):
    page = page_of(run)
    assert page.count("script") == page.count("link") == page.count("img") == 0
    links = [has["href"] for _, has in page.elements if "href" in has]
    assert links
    assert all(link.startswith("#") for link in links)
    ids = {has["id"] for _, has in page.elements if "id" in has}
    assert {link[1:] for link in links} <= ids


def test_one_run_gives_one_page(run):
    page_of(run)
    first = (run.parent / "report.html").read_bytes()
    page_of(run)
    assert (run.parent / "report.html").read_bytes() == first


def test_names_from_outside_are_text_and_nothing_else(run):
    name = '<img src=x onerror="alert(1)">&{{config}}'
    hostile = run.rename(run.with_name(name))
    with (hostile / "config.toml").open("a") as config:
        config.write("# </pre><script>alert(1)</script>\n")
    page = page_of(hostile)
    assert page.count("img") == page.count("script") == 0
    source = (hostile.parent / "report.html").read_text("utf-8")
    assert f"<h1>{escape(name)}</h1>" in source
    assert "# </pre><script>alert(1)</script>" in page.text


def test_a_path_that_is_no_text_is_no_obstacle(run):
    page = page_of(run.rename(run.with_name("run-\udcff")))
    assert "run-?" in page.text


def test_a_model_with_a_contact_regression_has_two_maps(run):
    save_weights(run / "weights.safetensors", esm1b(max_positions=64))
    page = page_of(run)
    assert page.count("figure", kind="map") == 2
    assert "contact regression" not in page.text


def no_weights(run):
    (run / "weights.safetensors").unlink()


def damaged_weights(run):
    (run / "weights.safetensors").write_bytes(b"\xff" * 100)


def no_record(run):
    (run / "metrics.jsonl").unlink()


def empty_record(run):
    (run / "metrics.jsonl").write_text("")


def damaged_record(run):
    (run / "metrics.jsonl").write_text('{"step": 1, "train_loss": "many"}\n')


def no_config(run):
    (run / "config.toml").unlink()


def damaged_config(run):
    (run / "config.toml").write_text("[data\n")


def data_of_another_shape(run):
    (run / "config.toml").write_text("data = 3\nmodel = [1]\n")


def moved_data(run):
    change(run, "proteins.fasta", "elsewhere.fasta")


def other_data(run):
    (run.parent / "other.fasta").write_text(fasta(40, seed=1))
    config = (run / "config.toml").read_text().splitlines()
    lines = [
        f'data = ["{run.parent}/other.fasta"]' if x.startswith("data =") else x for x in config
    ]
    (run / "config.toml").write_text("\n".join(lines))


def streamed_data(run):
    config = (run / "config.toml").read_text().splitlines()
    lines = ['data = ["-"]' if line.startswith("data =") else line for line in config]
    (run / "config.toml").write_text("\n".join(lines))


def downloaded_data(run):
    change(run, "dataset_partitions = []", "dataset_partitions = [7]")


def no_base(run):
    (run / "adapters").mkdir()


@pytest.mark.parametrize(
    ("spoil", "sentence"),
    [
        (no_weights, "The run has saved no weights yet."),
        (damaged_weights, "weights.safetensors"),
        (no_record, "The run has no rows in its record, metrics.jsonl, yet."),
        (empty_record, "The run has no rows in its record, metrics.jsonl, yet."),
        (damaged_record, "metrics.jsonl, row 1: expected numbers"),
        (no_config, "The run has no config.toml."),
        (damaged_config, "config.toml: expected TOML"),
        (data_of_another_shape, "[data]: expected a list of files or numbers."),
        (moved_data, "elsewhere.fasta"),
        (other_data, "The data are not those that the run was begun with"),
        (streamed_data, "standard input, which has gone"),
        (downloaded_data, "The run's data are not here any more: partition 7 of UniParc."),
        (no_base, "The run trained an adapter, and no config.toml names its base."),
    ],
    ids=lambda value: getattr(value, "__name__", ""),
)
def test_what_cannot_be_had_is_a_sentence_on_the_page(run, monkeypatch, spoil, sentence):
    def asked(*arguments):
        raise AssertionError("it asks the network")

    monkeypatch.setattr(download, "download", asked)
    spoil(run)
    left = {path: path.read_bytes() for path in run.iterdir() if path.is_file()}
    page = page_of(run)
    assert sentence in page.text
    assert page.count("h2") == 6
    # Nothing of the run is touched.
    assert {path: path.read_bytes() for path in run.iterdir() if path.is_file()} == left


def test_nan_weights_are_a_sentence(run):
    model = esm1b(max_positions=64)
    model.embed_tokens.weight = model.embed_tokens.weight * float("nan")
    save_weights(run / "weights.safetensors", model)
    assert "NaN or infinite" in page_of(run).text


def test_a_folder_of_something_else_is_refused(tmp_path):
    (tmp_path / "other").mkdir()
    result = invoke(tmp_path / "other")
    assert result.exit_code == 1
    assert "is no folder of a run" in " ".join(result.output.split())
    assert not (tmp_path / "report.html").exists()


def test_a_page_must_be_called_so(run):
    result = invoke(run, "report.png")
    assert (result.exit_code, result.stderr) == (
        1,
        f"Error: {run.parent}/report.png must end in .html.\n",
    )
